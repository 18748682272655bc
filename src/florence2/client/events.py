"""Server-sent events, read from a response while it comes in.

In: a request, or the bytes of a body in pieces. Out: one ``ServerSentEvent`` after the other. Comments, with which servers keep connections
alive, are skipped. Knows nothing of what events mean. Source: the HTML standard, section 9.2.6.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from florence2.client.connection import Connection, OpenResponse
from florence2.client.messages import leads_elsewhere
from florence2.client.retries import exchanged
from florence2.client.wire import Request, Response, ResponseHead, Target, error_of

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class ServerSentEvent:
    """One event.

    Attributes:
        event: its kind.
        data: its text; lines are joined by line feeds.
    """

    event: str
    data: str


@dataclass(frozen=True)
class _Begun(ResponseHead):
    """A stream of which the first event is known: None if it ended without any."""

    first: ServerSentEvent | None
    events: AsyncGenerator[ServerSentEvent, None]


AsError = Callable[[ServerSentEvent, ResponseHead], "Response | None"]
"""The answer with an error that an event stands for; None for every other event."""


async def stream_events(
    connection: Connection, target: Target, request: Request, as_error: AsError
) -> AsyncGenerator[ServerSentEvent | Response, None]:
    """The events of the answer to a request; closing the generator ends the response. Of a server that does not stream, its whole answer.

    The request is sent again as ``exchange`` says until there is a first event that is no error, and not after that.

    Args:
        connection: sends it.
        target: where to, and how.
        request: what is sent.
        as_error: says which events are errors; the first one ends the stream.

    Raises:
        CallError: the server answered with an error, or ended the stream with one.
        ConnectionFailed: no answer came, or it broke off.
        CallTimeout: the server was silent for too long.
    """
    response = await exchanged(connection, partial(_begin, connection, as_error), request, target.configuration)
    if isinstance(response, Response):
        if response.status_code >= 400 or leads_elsewhere(response):
            raise error_of(response, request, target)
        yield response
        return
    async with aclosing(response.events):
        if response.first is not None:
            yield response.first
        async for event in response.events:
            if failed := as_error(event, response):
                raise error_of(failed, request, target)
            yield event


async def _begin(connection: Connection, as_error: AsError, request: Request) -> Response | _Begun:
    """The answer to a request sent once: with its first event, or whole where it is no stream or an error."""
    response = await connection.stream(request)
    if isinstance(response, Response):
        return response
    if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
        try:
            return Response(response.status_code, response.headers, b"".join([piece async for piece in response.pieces]))
        finally:
            await _close(response)
    events = _events(response)
    try:
        first = await anext(events, None)
        failed = first and as_error(first, response)
    except BaseException:
        await events.aclose()
        raise
    if failed:
        await events.aclose()
        return failed
    return _Begun(response.status_code, response.headers, first, events)


async def _events(response: OpenResponse) -> AsyncGenerator[ServerSentEvent, None]:
    """The events of an open response, which is closed with the generator."""
    try:
        decoder = EventDecoder()
        async for piece in response.pieces:
            for event in decoder.decode(piece):
                yield event
    finally:
        await _close(response)


async def _close(response: OpenResponse) -> None:
    try:
        await response.pieces.aclose()
    finally:
        await response.close()


class EventDecoder:
    """Events out of the pieces of one body, however it is cut. What no empty line ends is no event."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_after_return = False
        self._is_at_start = True
        self._event = ""
        self._data: list[str] = []

    def decode(self, piece: bytes) -> Iterator[ServerSentEvent]:
        """The events that end in the next piece."""
        for line in self._lines(piece):
            if line:
                self._take(line)
                continue
            if self._data:
                yield ServerSentEvent(self._event or "message", "\n".join(self._data))
            self._event, self._data = "", []

    def _lines(self, piece: bytes) -> Iterator[str]:
        """The lines that end in the next piece, by any of the three line ends."""
        if self._is_after_return and piece:  # the line feed of a pair whose first half ended the piece before
            piece = piece.removeprefix(b"\n")
            self._is_after_return = False
        start = 0
        for end in _LINE_END.finditer(piece):
            yield self._text(bytes(self._rest) + piece[start : end.start()])
            self._rest.clear()
            start = end.end()
        self._is_after_return = self._is_after_return or piece.endswith(b"\r")
        self._rest += piece[start:]

    def _text(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace")
        if self._is_at_start:
            self._is_at_start = False
            return text.removeprefix("\ufeff")
        return text

    def _take(self, line: str) -> None:
        """One line with a field; a line that begins with a colon is a comment."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
