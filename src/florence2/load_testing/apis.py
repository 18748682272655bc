"""The two forms of requests: ``/infer/lmm``, and OpenAI's chat completions.

In: a prompt and a picture in base64. Out: the bytes of a body; and what the bytes or events of an answer say of it: that it is whole, how
many tokens it has, or what is wrong. Knows nothing of connections and clocks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, Protocol

from florence2.client.events import ServerSentEvent
from florence2.client.messages import message_of
from florence2.client.wire import Response

_PICTURE = "florence2:picture"  # where the picture goes in a body; no base64 has a colon


class BadAnswer(Exception):
    """An answer that is none: another form than was agreed."""


@dataclass(frozen=True)
class Heard:
    """What one event of a stream says.

    Attributes:
        kind: ``part`` of the answer, its ``end``, an ``error``, or ``nothing`` of it.
        num_tokens: of the answer, where it says so.
        status: of an error; None where it does not say.
        message: of an error.
        retry_after_s: of an error.
    """

    kind: Literal["part", "end", "error", "nothing"]
    num_tokens: int | None = None
    status: int | None = None
    message: str = ""
    retry_after_s: float | None = None


class Api(Protocol):
    """One form of requests and answers."""

    name: str
    path: str

    def body(self, prompt: str, picture64: bytes, media_type: str) -> bytes:
        """The body of a request."""
        ...

    def num_tokens(self, answer: bytes) -> int | None:
        """How many tokens an answer has, where it says so.

        Raises:
            BadAnswer: it is no answer.
        """
        ...

    def hear(self, event: ServerSentEvent) -> Heard:
        """What an event says.

        Raises:
            BadAnswer: it has not the form of one.
        """
        ...


@dataclass(frozen=True)
class Options:
    """What all requests of a test have in common.

    Attributes:
        model: the model's id.
        is_streamed: whether answers come in events.
        api_key: goes into the body where servers look for it there.
        fields: further fields of the body.
    """

    model: str
    is_streamed: bool = False
    api_key: str | None = field(default=None, repr=False)
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LmmApi:
    """``POST /infer/lmm``, as Roboflow's server and this project's have it.

    Attributes:
        options: what all requests have in common.
        asks_for_usage: whether the server is told to count tokens.
    """

    options: Options
    asks_for_usage: bool = False
    name = "lmm"
    path = "/infer/lmm"

    def body(self, prompt: str, picture64: bytes, media_type: str) -> bytes:
        """As in ``Api``."""
        options = self.options
        fields: dict[str, Any] = {} if options.api_key is None else {"api_key": options.api_key}
        fields |= {"model_id": options.model, "prompt": prompt, **options.fields}
        fields |= {"usage": True} if self.asks_for_usage else {}
        fields |= {"stream": True} if options.is_streamed else {}
        return _filled({**fields, "image": {"type": "base64", "value": _PICTURE}}, picture64)

    def num_tokens(self, answer: bytes) -> int | None:
        """As in ``Api``."""
        return _lmm_tokens(_object(answer))

    def hear(self, event: ServerSentEvent) -> Heard:
        """As in ``Api``."""
        if event.event in ("text", "object"):
            return Heard("part")
        if event.event == "done":
            return Heard("end", _lmm_tokens(_object(event.data)))
        if event.event == "error":
            return _error(_object(event.data))
        return Heard("nothing")


@dataclass(frozen=True)
class OpenAIApi:
    """``POST /v1/chat/completions``, as OpenAI's clients send it.

    Attributes:
        options: what all requests have in common.
    """

    options: Options
    name = "openai"
    path = "/v1/chat/completions"

    def body(self, prompt: str, picture64: bytes, media_type: str) -> bytes:
        """As in ``Api``."""
        url = f"data:{media_type};base64,{_PICTURE}"
        content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": url}}]
        fields = {"model": self.options.model, "messages": [{"role": "user", "content": content}], **self.options.fields}
        if self.options.is_streamed:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return _filled(fields, picture64)

    def num_tokens(self, answer: bytes) -> int | None:
        """As in ``Api``."""
        fields = _object(answer)
        if not isinstance(fields.get("choices"), list) or not fields["choices"]:
            raise BadAnswer("the answer has no choices")
        return _count(fields.get("usage"))

    def hear(self, event: ServerSentEvent) -> Heard:
        """As in ``Api``."""
        if event.data.strip() == "[DONE]":
            return Heard("end")
        fields = _object(event.data)
        if "error" in fields:
            return _error(fields)
        choices = fields.get("choices") or []
        says_something = any(isinstance(one, dict) and (one.get("delta") or {}).get("content") for one in choices)
        return Heard("part" if says_something else "nothing", _count(fields.get("usage")))


def message_in(status: int, headers: Mapping[str, str], answer: bytes) -> str:
    """What an answer with an error says, in any of the forms that servers have."""
    try:
        fields = json.loads(answer)
    except ValueError:
        fields = None
    if isinstance(fields, dict) and isinstance(fields.get("error"), dict):
        fields = fields["error"]
    return " ".join(message_of(fields, Response(status, headers, answer)).split())[:300]


def _filled(fields: Mapping[str, Any], picture64: bytes) -> bytes:
    """The body with the picture in its place, which is not escaped, letter by letter, as JSON."""
    before, _, after = json.dumps(fields).encode().partition(_PICTURE.encode())
    return b"".join((before, picture64, after))


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError:
        raise BadAnswer("the answer is not JSON") from None
    if not isinstance(fields, dict):
        raise BadAnswer(f"the answer is a JSON {type(fields).__name__}, not an object")
    return fields


def _lmm_tokens(fields: Mapping[str, Any]) -> int | None:
    if "response" not in fields:
        raise BadAnswer("the answer has no response")
    return _count(fields.get("usage"))


def _count(usage: object) -> int | None:
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _error(fields: Mapping[str, Any]) -> Heard:
    """An event with an error, in either form."""
    inner = fields.get("error")
    inner = inner if isinstance(inner, dict) else fields
    status = next((one for one in (fields.get("status"), inner.get("status"), inner.get("code")) if isinstance(one, int)), None)
    wait = next((one for one in (fields.get("retry_after"), inner.get("retry_after")) if isinstance(one, (int, float))), None)
    message = str(inner.get("message") or HTTPStatus.INTERNAL_SERVER_ERROR.phrase)
    return Heard("error", status=status, message=message[:300], retry_after_s=wait)
