"""What a server's events say, as the values that the caller gets.

In: one event of ``/infer/lmm``, or the whole answer of a server that does not stream. Out: ``TextDecided`` and ``ObjectFound``, and an
``Outcome`` for each image that is answered or has failed. Images are counted as in the request. Knows nothing of connections.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from florence2.client import wire
from florence2.client.answers import Answer, found_object, typed
from florence2.client.errors import InferenceError, UnexpectedAnswer
from florence2.client.events import ServerSentEvent
from florence2.client.inputs import Encoded
from florence2.client.lmm_events import ObjectFound, TextDecided
from florence2.client.lmm_requests import LmmCall, outcomes_of
from florence2.client.wire import Request, Response, ResponseHead


@dataclass(frozen=True)
class Outcome:
    """The answer about one image, or its error."""

    image_index: int
    outcome: Any


Reading = TextDecided | ObjectFound | Outcome


def as_error(event: ServerSentEvent, head: ResponseHead) -> Response | None:
    """The answer that an error of the whole request would have been before the stream began; None for every other event."""
    if event.event != "error":
        return None
    try:
        body = json.loads(event.data)
    except ValueError:
        body = None
    fields = body if isinstance(body, Mapping) else {}
    if "image_index" in fields:
        return None
    status, seconds = fields.get("status"), fields.get("retry_after")
    headers = head.headers if seconds is None else {**head.headers, "retry-after": str(seconds)}
    return Response(status if isinstance(status, int) and 400 <= status < 600 else 500, headers, event.data.encode())


def read_event(event: ServerSentEvent, request: Request, images: Sequence[Encoded], call: LmmCall) -> list[Reading]:
    """What one event says; nothing where it is of a kind that is not known.

    Raises:
        UnexpectedAnswer: it has not the form of such an event.
    """
    if event.event not in ("text", "object", "error", "done"):
        return []
    try:
        body = json.loads(event.data)
        if event.event == "done":
            return list(_outcomes(body, request, images, call))
        index = range(len(images))[body["image_index"]]
        if event.event == "error":
            return [Outcome(index, wire.error_of_item(body, call.target))]
        if event.event == "text":
            return [TextDecided(str(body["text"]), index, int(body["prompt_index"]))] if body["text"] else []
        image = images[index]
        found = found_object(body, image.sent_size, image.original_size)
        return [ObjectFound(found, int(body["object_index"]), index, int(body["prompt_index"]))]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        said = wire.quoted_of(event.data, call.target)
        raise UnexpectedAnswer(f"an event of {request.name} can't be read ({type(error).__name__}): {event.event} {said!r}") from error


def read_whole(response: Response, request: Request, images: Sequence[Encoded], call: LmmCall) -> list[Reading]:
    """What an answer in one piece says, as events that might have come before it.

    Raises:
        UnexpectedAnswer: it is not an answer about these images.
    """
    outcomes = list(_outcomes(wire.read_answer(response, request, call.target), request, images, call))
    return [*(event for outcome in outcomes for event in _events_before(outcome)), *outcomes]


def _outcomes(body: Any, request: Request, images: Sequence[Encoded], call: LmmCall) -> Iterator[Outcome]:
    for index, outcome in enumerate(outcomes_of(body, request, images, call)):
        yield Outcome(index, outcome)


def _events_before(outcome: Outcome) -> Iterator[TextDecided | ObjectFound]:
    """The text and the objects of an answer; nothing of an error, or of an answer in another form."""
    answer: Any = outcome.outcome
    if isinstance(answer, InferenceError):
        return
    if isinstance(answer, Mapping):
        with suppress(UnexpectedAnswer):
            answer = typed(answer)
    for prompt_index, one in enumerate(answer if isinstance(answer, list) else [answer]):
        if isinstance(one, Answer):
            if one.text:
                yield TextDecided(one.text, outcome.image_index, prompt_index)
            for object_index, found in enumerate(one.objects):
                yield ObjectFound(found, object_index, outcome.image_index, prompt_index)
