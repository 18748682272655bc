"""A streamed answer in this API's chunks, as server-sent events.

The first chunk names the role, the next ones have the text as it is decided, then one says why it ended, one counts the tokens where that
was asked for, and ``[DONE]`` is last. With ``json_object`` all of the content is in one chunk: its lists of boxes and labels are complete
only at the end. In: what the inference service yields. Out: encoded events. Knows nothing of responses.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from florence2.errors import Florence2Error
from florence2.results import Result
from florence2.server.http.sse import encode_event
from florence2.server.inference.answering_engine import ServedEngine
from florence2.server.inference.events import ImageEvent, Queued
from florence2.server.inference.request import InferenceRequest, Outcome
from florence2.server.inference.service import InferenceService
from florence2.server.openai.answers import answer_head, content, log_probabilities, result_of, usage
from florence2.server.openai.refusals import error_body
from florence2.server.openai.schemas import ChatRequest, LogProbabilities

DONE = encode_event("[DONE]")


async def stream_chunks(
    message: ChatRequest, request: InferenceRequest, inference: InferenceService, engine: ServedEngine
) -> AsyncGenerator[bytes, None]:
    """The events of a streamed answer.

    Args:
        message: the request in this API's form.
        request: the same for the inference service.
        inference: the service.
        engine: spells the tokens.

    Raises:
        Florence2Error: whatever is wrong; before the first event if it is the request's mistake.
    """
    from florence2.answer_events import TokensDecided  # brings torch, which the server's start need not wait for

    chunks = _Chunks(message, request.model_id, engine)
    async with aclosing(inference.stream(request)) as happenings:
        async for happening in happenings:
            if isinstance(happening, Queued):
                yield chunks.encode({"role": "assistant", "content": ""})
            elif isinstance(happening, Outcome):
                for event in chunks.last(result_of(happening)):
                    yield event
            elif isinstance(happening, ImageEvent) and isinstance(event := happening.event, TokensDecided) and not message.wants_json:
                tokens = chunks.tokens(event.token_ids, event.log_probabilities)
                if event.text or tokens:
                    yield chunks.encode({"content": event.text}, tokens=tokens)
    yield DONE


def error_event(error: Florence2Error, help_root: str) -> bytes:
    """The event that says why no more come; arguments as in ``error_body``."""
    return encode_event(json.dumps(error_body(error, help_root)))


class _Chunks:
    """The chunks of one answer, all under one id."""

    def __init__(self, message: ChatRequest, model_id: str, engine: ServedEngine) -> None:
        self._message = message
        self._engine = engine
        self._head = {**answer_head(model_id), "object": "chat.completion.chunk"}
        self._counts = message.stream_options is not None and bool(message.stream_options.include_usage)

    def tokens(self, token_ids: Sequence[int], values: Sequence[float]) -> LogProbabilities | None:
        """The log-probabilities of tokens; None: nobody asked for them, or the tokens have no text."""
        return log_probabilities(self._engine, token_ids, values) if self._message.logprobs else None

    def last(self, result: Result) -> list[bytes]:
        """What follows once the whole answer is there."""
        found = []
        if self._message.wants_json:
            tokens = self.tokens(result.token_ids, result.log_probabilities or ())
            found.append(self.encode({"content": content(self._message, result)}, tokens=tokens))
        found.append(self.encode({}, finish_reason=result.finish_reason))
        if self._counts:
            counted = usage(result.usage)
            found.append(_encoded({**self._head, "choices": [], "usage": counted and counted.model_dump()}))
        return found

    def encode(self, delta: dict[str, Any], *, tokens: LogProbabilities | None = None, finish_reason: str | None = None) -> bytes:
        """One chunk of the answer, encoded."""
        choice = {"index": 0, "delta": delta, "logprobs": tokens and tokens.model_dump(), "finish_reason": finish_reason}
        return _encoded({**self._head, "choices": [choice], **({"usage": None} if self._counts else {})})


def _encoded(chunk: dict[str, Any]) -> bytes:
    return encode_event(json.dumps(chunk, ensure_ascii=False, separators=(",", ":")))
