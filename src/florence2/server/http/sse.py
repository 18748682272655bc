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
_LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}
"""Characters that JSON may hold as they are, and at which many readers of decoded text end a line (``str.splitlines``); escaped."""


def encode_event(data: str, kind: str | None = None) -> bytes:
    """One event.

    Args:
        data: JSON on one line, or a word.
        kind: its kind; None: the default of readers, which is "message".
    """
    data = data.translate(_LINE_ENDS)
    return f"event: {kind}\ndata: {data}\n\n".encode() if kind else f"data: {data}\n\n".encode()


def event_stream(
    request: Request,
    events: AsyncGenerator[bytes, None],
    *,
    error_event: Callable[[Florence2Error], bytes],
    headers: dict[str, str] | None = None,
) -> StreamedResponse:
    """The response to a request whose answer is streamed.

    Its head goes out with the first event, or with the first comment where that takes long (see ``with_comments``). An error before that is
    an ordinary response; one after it is the last event. The longest time for a request holds for all of it.

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
    )


async def with_comments(events: AsyncGenerator[bytes, None], every_s: float) -> AsyncGenerator[bytes, None]:
    """The events, those that are there at the same time in one part, and a comment each time that none has come for ``every_s`` seconds.

    Comments begin behind the first event. An empty one is not sent: it says that from here on the answer is waited for, and nothing is
    left to be refused.
    """
    has_begun = False
    ready: list[bytes] = []
    has_news = asyncio.Event()
    taking = asyncio.ensure_future(_take_all(events, ready, has_news))
    taking.add_done_callback(lambda _: has_news.set())
    try:
        while True:
            try:
                async with asyncio.timeout(every_s if has_begun else None):
                    await has_news.wait()
            except TimeoutError:
                yield KEEP_ALIVE
                continue
            has_news.clear()
            has_begun = has_begun or bool(ready)
            is_whole, part = taking.done(), b"".join(ready)
            ready.clear()
            if part:
                yield part
            if is_whole:
                taking.result()  # the error that has ended them, if one has
                return
    finally:
        taking.cancel()
        await asyncio.wait({taking})
        if not taking.cancelled():
            taking.exception()  # retrieved, even if nobody asks any more


async def _take_all(events: AsyncGenerator[bytes, None], ready: list[bytes], has_news: asyncio.Event) -> None:
    """Put the events into a list as they come, and close them in any case."""
    async with aclosing(events):
        async for event in events:
            ready.append(event)
            has_news.set()
