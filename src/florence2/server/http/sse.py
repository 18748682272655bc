"""Server-sent events: how one is written, and the response that sends them as they come.

An event is a line with its kind, a line of data and an empty line; a line that begins with a colon is a comment, which readers ignore.
Knows nothing of what events say.
"""

from __future__ import annotations

import asyncio
from collections import ChainMap
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from starlette.requests import Request

from florence2.errors import Florence2Error
from florence2.server.http.state import state_of
from florence2.server.http.streaming import StreamedResponse

MEDIA_TYPE = "text/event-stream"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""No copy for others, and no proxy that collects events before it passes them on (nginx reads the second one)."""
KEEP_ALIVE = b": keep-alive\n\n"


def encode_event(data: str, kind: str | None = None) -> bytes:
    """One event.

    Args:
        data: one line, such as JSON.
        kind: its kind; None: the default of readers, which is "message".
    """
    return f"event: {kind}\ndata: {data}\n\n".encode() if kind else f"data: {data}\n\n".encode()


def event_stream(
    request: Request,
    events: AsyncGenerator[bytes, None],
    *,
    error_event: Callable[[Florence2Error], bytes],
    headers: dict[str, str] | None = None,
) -> StreamedResponse:
    """The response to a request whose answer is streamed.

    Its head goes out with the first event, or with the first comment where that takes long. An error before that is an ordinary response;
    one after it is the last event. The longest time for a request holds for all of it.

    Args:
        request: the request.
        events: encoded events; closed in any case.
        error_event: makes the event that says why no more come.
        headers: further headers; those that ``events`` adds before its first event are sent too.
    """
    settings = state_of(request).settings
    request.scope["state"]["last_part"] = error_event
    return StreamedResponse(
        with_comments(events, settings.stream_keep_alive_s),
        media_type=MEDIA_TYPE,
        headers=ChainMap({} if headers is None else headers, HEADERS),
        timeout_s=settings.request_timeout_s,
    )


async def with_comments(events: AsyncGenerator[bytes, None], every_s: float) -> AsyncGenerator[bytes, None]:
    """The events, and a comment each time that none has come for ``every_s`` seconds."""
    async with aclosing(events):
        while True:
            coming = asyncio.ensure_future(_next(events))
            try:
                while not (await asyncio.wait({coming}, timeout=every_s))[0]:
                    yield KEEP_ALIVE
            except BaseException:
                await _end(coming)  # a generator that still runs can't be closed
                raise
            event = coming.result()
            if event is None:
                return
            yield event


async def _next(events: AsyncGenerator[bytes, None]) -> bytes | None:
    """The next event; None: there is none."""
    return await anext(events, None)


async def _end(task: asyncio.Task[bytes | None]) -> None:
    """Cancel a task and wait until it has ended; what it has come to is of no use any more."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
