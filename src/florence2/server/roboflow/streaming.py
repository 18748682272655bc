"""Answers of this API as server-sent events: ``text``, ``object``, ``done`` and ``error``.

In: what the inference service yields. Out: encoded events. Knows nothing of how they are sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from starlette.requests import Request

from florence2.errors import Florence2Error
from florence2.server.errors import as_json, retry_after_s
from florence2.server.http.sse import encode_event, event_stream
from florence2.server.http.streaming import StreamedResponse
from florence2.server.inference.events import Happening, ImageEvent, ImageFailed, Queued
from florence2.server.inference.request import Outcome
from florence2.server.roboflow.answers import answers_json, header_name, model_headers
from florence2.server.roboflow.schemas import ErrorEvent, InferRequest, ObjectEvent, TextEvent

if TYPE_CHECKING:
    from florence2.answer_events import ObjectFound

Happenings = AsyncGenerator[Happening | Outcome, None]


def stream_answers(request: Request, message: InferRequest, model_id: str, happenings: Happenings) -> StreamedResponse:
    """The response to a request whose answer is streamed.

    Args:
        request: the request as it came.
        message: the request in this API's form.
        model_id: the canonical id of its model.
        happenings: what the inference service yields for it.
    """
    help_root = request.scope["state"]["help_root"]
    headers = {"x-model-id": header_name(model_id), "x-inference-engine": "florence2"}
    return event_stream(
        request,
        _events(message, happenings, headers, request.scope["state"]["started"], help_root),
        error_event=lambda error: _error_event(error, help_root),
        headers=headers,
    )


async def _events(
    message: InferRequest, happenings: Happenings, headers: dict[str, str], started: float, help_root: str
) -> AsyncGenerator[bytes, None]:
    """The events of one response; what is known of the model before the first one is put into ``headers``."""
    async with aclosing(happenings):
        async for one in happenings:
            if isinstance(one, Queued):
                headers.update(model_headers(one.model_id, one.load_s, one.is_cold_start))
                yield b""  # from here on it is the engine that is waited for
            elif isinstance(one, Outcome):
                yield encode_event(answers_json(message, one, started, help_root), "done")
            elif isinstance(one, ImageFailed):
                yield _error_event(one.error, help_root, image_index=one.image_index)
            elif (event := _event_of(message, one)) is not None:
                yield event


def _event_of(message: InferRequest, one: ImageEvent) -> bytes | None:
    """An event of the engine as clients read it; None where it says nothing to them."""
    from florence2.answer_events import TokensDecided

    place: dict[str, Any] = {"image_index": one.image_index, "prompt_index": one.event.index}
    if not isinstance(one.event, TokensDecided):
        return _encode("object", ObjectEvent(**place, **_object_fields(message, one.event, one.image_size)))
    return _encode("text", TextEvent(**place, text=one.event.text)) if one.event.text else None


def _object_fields(message: InferRequest, event: ObjectFound, image_size: tuple[int, int]) -> dict[str, Any]:
    """An object with the coordinates that were asked for."""
    found = event.object if message.coordinates == "int" else event.object.unrounded(event.bins, image_size)
    fields: dict[str, Any] = {"object_index": event.object_index, "label": found.label, "box": found.box}
    if found.quad is not None:
        fields["quad"] = found.quad
    if found.polygons:
        fields["polygons"] = found.polygons
    if found.score is not None:
        fields["score"] = found.score
    return fields


def _error_event(error: Florence2Error, help_root: str, **place: Any) -> bytes:
    fields = {**as_json(error, help_root), "status": error.status, **place}
    if (seconds := retry_after_s(error)) is not None:
        fields["retry_after"] = seconds
    return _encode("error", ErrorEvent(**fields))


def _encode(kind: str, data: BaseModel) -> bytes:
    return encode_event(data.model_dump_json(exclude_unset=True), kind)
