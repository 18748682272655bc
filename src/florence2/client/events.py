"""Server-sent events, read from a response while it comes in.

In: a request, or the bytes of a body in pieces. Out: one ``ServerSentEvent`` after the other. Comments, with which servers keep connections
alive, are skipped. Knows nothing of what events mean. Source: the HTML standard, section 9.2.6.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from florence2.client.connection import Connection, open_stream
from florence2.client.wire import Request, Response, Target, error_of

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


async def stream_events(connection: Connection, target: Target, request: Request) -> AsyncGenerator[ServerSentEvent, None]:
    """The events of the answer to a request; closing the generator ends the response.

    The request is sent again as ``exchange`` says until an answer that is a success begins, and not after that.

    Raises:
        CallError: the server answered with an error.
        ConnectionFailed: no answer came, or it broke off.
        CallTimeout: the server was silent for too long.
    """
    response = await open_stream(connection, request, target.configuration)
    if isinstance(response, Response):
        raise error_of(response, request, target)
    try:
        decoder = EventDecoder()
        async for piece in response.pieces:
            for event in decoder.decode(piece):
                yield event
    finally:
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
