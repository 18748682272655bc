"""``stream_lmm``, written once for calls with and without ``await``.

An async generator over a ``Connection``: images are identified, fetched, encoded and sent as by ``infer``, and what the server says of them
comes as events with the caller's indices, from whichever request has one. Knows nothing of the client's state.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from florence2.client.connection import Connection
from florence2.client.errors import ConnectionFailed, InferenceError
from florence2.client.event_reading import Outcome, Reading, as_error, read_event, read_whole
from florence2.client.events import stream_events
from florence2.client.inputs import Encoded, Source, flattened, identify, is_many
from florence2.client.lmm_events import Done, ImageFailed, LmmEvent
from florence2.client.lmm_requests import LmmCall, failures, groups_of, identified, prepared, request_for, requests_for, settled
from florence2.client.progress import ProgressReport
from florence2.client.wire import Response


async def stream(connection: Connection, call: LmmCall, given: Any) -> AsyncGenerator[LmmEvent[Any], None]:
    """The events of the answer about an image, or of those about each image of a list; the last one is ``Done``.

    Raises:
        InferenceError: as ``infer`` does; and where the answer breaks off.
    """
    if is_many(given):
        async with aclosing(_stream_list(connection, call, flattened(given))) as events:
            async for event in events:
                yield event
        return
    async with aclosing(_group_events(call, {0: identify(given)}, connection)) as progress:
        async for event in progress:
            if not isinstance(event, Outcome):
                yield event
            elif isinstance(event.outcome, InferenceError):
                raise event.outcome
            else:
                yield Done(event.outcome)


async def _stream_list(connection: Connection, call: LmmCall, items: Sequence[Any]) -> AsyncGenerator[LmmEvent[Any], None]:
    """The events about each image of a list, as they come."""
    outcomes: list[Any] = [*identified(items, call)]
    groups = groups_of(outcomes, call)
    num_missing = sum(map(len, groups))
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, InferenceError):
            yield ImageFailed(outcome, index)
    parts = [partial(_group_events, call, {index: outcomes[index] for index in group}) for group in groups]
    with ProgressReport(call.progress, len(items)) as report:
        report.add(len(items) - num_missing)
        async with aclosing(connection.merge(parts, call.target.configuration.max_concurrent_requests)) as progress:
            async for event in progress:
                if not isinstance(event, Outcome):
                    yield event
                    continue
                outcome = outcomes[event.image_index] = settled(event.outcome, event.image_index, call)
                if isinstance(outcome, InferenceError):
                    yield ImageFailed(outcome, event.image_index)
                report.add(1)
                num_missing -= 1
                if not num_missing:
                    yield Done(outcomes)
    if not groups:
        yield Done(outcomes)


async def _group_events(call: LmmCall, sources: Mapping[int, Source], connection: Connection) -> AsyncGenerator[Reading, None]:
    """The events about images that share a request, each image by its index; an outcome for each of them."""
    indices: list[int] = []
    images: list[Encoded] = []
    for index, source in sources.items():
        image = await prepared(connection, call, source)
        if isinstance(image, InferenceError):
            yield Outcome(index, image)
        else:
            indices.append(index)
            images.append(image)
    remaining = iter(indices)
    for part in requests_for(images, call):
        own = [next(remaining) for _ in part]
        async with aclosing(_request_events(connection, call, part)) as events:
            async for event in events:
                yield replace(event, image_index=own[event.image_index])


async def _request_events(connection: Connection, call: LmmCall, images: Sequence[Encoded]) -> AsyncGenerator[Reading, None]:
    """The events of one request, its images counted from 0; an outcome for each of them, once."""
    missing = set(range(len(images)))
    try:
        async with aclosing(_sent(connection, call, images)) as events:
            async for event in events:
                if not isinstance(event, Outcome):
                    yield event
                elif event.image_index in missing:
                    missing.discard(event.image_index)
                    yield event
    except InferenceError as failure:
        for index, error in enumerate(failures(failure, len(images), call)):
            if index in missing and error is not None:
                yield Outcome(index, error)


async def _sent(connection: Connection, call: LmmCall, images: Sequence[Encoded]) -> AsyncGenerator[Reading, None]:
    """What the server says about the images of one request, to its end.

    Raises:
        ConnectionFailed: there is no answer at the end.
    """
    request = await request_for(connection, call, images, stream=True)
    is_done = False
    try:
        async with aclosing(stream_events(connection, call.target, request, as_error)) as answer:
            async for event in answer:
                if is_done:  # what follows is read, so that the connection can be used again
                    continue
                is_whole = isinstance(event, Response)
                readings = read_whole(event, request, images, call) if is_whole else read_event(event, request, images, call)
                is_done = is_whole or event.event == "done"
                for reading in readings:
                    yield reading
    except InferenceError:
        if not is_done:
            raise
    if not is_done:
        host = "/".join(request.url.split("/")[:3])
        raise ConnectionFailed(f"the connection to {host} broke off during {request.name}: the stream ended without its last event")
