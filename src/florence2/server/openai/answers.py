"""From a result to this API's messages: the content of an answer, its tokens' log-probabilities, what it counts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from florence2.results import Result, Usage
from florence2.server.inference.answering_engine import ServedEngine
from florence2.server.inference.request import ImageAnswer, Outcome
from florence2.server.openai.schemas import (
    AnswerMessage,
    ChatRequest,
    Choice,
    Completion,
    LogProbabilities,
    PromptTokens,
    TokenLogProbability,
    TokenUsage,
)
from florence2.tasks.vocabulary import STRUCTURAL

_FRAMING = frozenset(token.encode() for token in STRUCTURAL)


def answer_head(model_id: str) -> dict[str, Any]:
    """What an answer and each chunk of a stream begin with, beside the kind of object that it is.

    Args:
        model_id: the canonical id of the model.
    """
    return {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": model_id}


def result_of(outcome: Outcome) -> Result:
    """The one result of a request with one picture and one prompt."""
    (answer,) = outcome.answers
    if not isinstance(answer, ImageAnswer):
        raise answer
    return answer.results[0]


def completion(message: ChatRequest, result: Result, model_id: str, engine: ServedEngine) -> Completion:
    """The whole answer to a request that is not streamed."""
    choice = Choice(
        message=AnswerMessage(content=content(message, result)),
        logprobs=log_probabilities(engine, result.token_ids, result.log_probabilities or ()) if message.logprobs else None,
        finish_reason=result.finish_reason,
    )
    return Completion(**answer_head(model_id), choices=[choice], usage=usage(result.usage))


def content(message: ChatRequest, result: Result) -> str:
    """The text of an answer: the generated one, or with ``json_object`` the dictionary of the parsed answer."""
    if not message.wants_json:
        return result.text
    return json.dumps(result.to_dict(coordinates=message.coordinates or "int"), ensure_ascii=False)


def usage(counted: Usage | None) -> TokenUsage | None:
    """What an answer counts; the image's tokens are part of the prompt's."""
    if counted is None:
        return None
    return TokenUsage(
        prompt_tokens=counted.num_prompt_tokens,
        completion_tokens=counted.num_answer_tokens,
        total_tokens=counted.num_prompt_tokens + counted.num_answer_tokens,
        prompt_tokens_details=PromptTokens(
            image_tokens=counted.num_image_tokens, cached_tokens=counted.num_image_tokens if counted.is_image_cached else 0
        ),
    )


def log_probabilities(engine: ServedEngine, token_ids: Iterable[int], values: Iterable[float]) -> LogProbabilities | None:
    """The log-probability of each token but those that frame an answer, so that the others are its text; None: there are no others."""
    found = []
    for token_id, value in zip(token_ids, values, strict=True):
        data = engine.token_bytes(token_id)
        if data not in _FRAMING:
            found.append(TokenLogProbability(token=data.decode("utf-8", "replace"), logprob=value, bytes=list(data), top_logprobs=[]))
    return LogProbabilities(content=found) if found else None
