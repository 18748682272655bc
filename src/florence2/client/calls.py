"""``infer_lmm``, written once for calls with and without ``await``.

A coroutine over a ``Connection``: identify, fetch, encode, send, read. Lists keep their order and are bounded in how much of them is
under way. Knows nothing of the client's state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from florence2.client import wire
from florence2.client.connection import Connection
from florence2.client.errors import InferenceError
from florence2.client.inputs import Encoded, Source, flattened, identify, is_many
from florence2.client.lmm_requests import (
    LmmCall,
    failures,
    groups_of,
    identified,
    outcomes_of,
    prepared,
    request_for,
    requests_for,
    settled,
)
from florence2.client.progress import ProgressReport
from florence2.client.retries import exchange


async def infer(connection: Connection, call: LmmCall, given: Any) -> Any:
    """The answer about an image; for a list the list of answers, in its order.

    Raises:
        InferenceError: the image, or the first of the list with ``on_error="fail"``, has no answer.
    """
    if not is_many(given):
        (outcome,) = await _infer_group(connection, call, [identify(given)])
        if isinstance(outcome, InferenceError):
            raise outcome
        return outcome
    items = flattened(given)
    if not items:
        return []
    sources = identified(items, call)
    outcomes: list[Any] = list(sources)
    groups = groups_of(sources, call)
    with ProgressReport(call.progress, len(items)) as report:
        report.add(len(items) - sum(map(len, groups)))

        async def answer(group: list[int]) -> None:
            found = await _infer_group(connection, call, [outcomes[index] for index in group])
            for index, outcome in zip(group, found, strict=True):
                outcomes[index] = settled(outcome, index, call)
            report.add(len(group))

        await connection.gather([lambda group=group: answer(group) for group in groups], call.target.configuration.max_concurrent_requests)
    return outcomes


async def _infer_group(connection: Connection, call: LmmCall, sources: Sequence[Source]) -> list[Any]:
    """The answers about images that share a request; an ``InferenceError`` instead of a missing one."""
    images = [await prepared(connection, call, source) for source in sources]
    answers: list[Any] = []
    for part in requests_for([image for image in images if isinstance(image, Encoded)], call):
        answers += await _answers(connection, call, part)
    remaining = iter(answers)
    return [next(remaining) if isinstance(image, Encoded) else image for image in images]


async def _answers(connection: Connection, call: LmmCall, images: Sequence[Encoded]) -> list[Any]:
    """The answers to one request, an error for each image that failed."""
    try:
        request = await request_for(connection, call, images)
        response = await exchange(connection, request, call.target.configuration)
        return outcomes_of(wire.read_answer(response, request, call.target), request, images, call)
    except InferenceError as failure:
        return failures(failure, len(images), call)
