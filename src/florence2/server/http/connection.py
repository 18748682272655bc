"""One connection to a client: uvicorn's HTTP/1.1 with limits on what a client may leave unfinished.

There is a limit on a head that comes in slowly, on a body whose request is answered already, on a response that the client does not read,
and on chunks of a few bytes. What is no HTTP gets an error in the server's default form. Knows nothing of the application.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from uuid import uuid4

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from florence2.errors import Florence2Error
from florence2.server.errors import BadFraming, BodyTimedOut, HeadersTooLarge, as_json
from florence2.server.http.logs import ACCESS, FIELDS
from florence2.server.http.metrics import Metrics
from florence2.server.http.middleware import DISCARD_TIMEOUT_S, DISCARDED_BYTES, MAX_HEAD_BYTES
from florence2.server.settings import Settings

# A client that reads slower than this reads nothing.
MIN_READ_BYTES = 16 * 2**10
# A part of a body costs 20 µs, whatever it holds.
FREE_CHUNKS = 1000
MIN_CHUNK_BYTES = 64
_VERSIONS = (b"1.0", b"1.1")


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with more timers. ``settings`` and ``metrics`` come on top of its own arguments.

    Attributes:
        idle_since: when the connection was made or its last response was complete; on the monotonic clock.
    """

    def __init__(self, *arguments: Any, settings: Settings, metrics: Metrics, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = _Parser(h11.SERVER, MAX_HEAD_BYTES)
        self._settings = settings
        self._metrics = metrics
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self._lingering_bytes = self._unread_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first head."""
        self.idle_since = time.monotonic()
        super().connection_made(transport)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all timers."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        for timer in (self._head_timer, self._linger_timer, self._read_timer):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse what was received."""
        if self._linger_timer is not None:
            self._lingering_bytes += len(data)
            if self._lingering_bytes > DISCARDED_BYTES:
                self.transport.abort()
                return
        super().data_received(data)
        self._watch_head()
        self._watch_rest()

    def _unsupported_upgrade_warning(self) -> None:
        """No line for a client that asks for HTTP/2 or a WebSocket: it is answered by HTTP/1.1, and there is nothing to install."""

    def on_response_complete(self) -> None:
        """Start the timers for reading the response and for the rest of the request's body."""
        self.idle_since = time.monotonic()
        super().on_response_complete()
        self._watch_reading()
        self._watch_rest()

    def pause_writing(self) -> None:
        """Start the timer for reading the response."""
        super().pause_writing()
        self._watch_reading()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or what h11 has refused."""
        if self.conn.has_large_head:
            self._refuse(HeadersTooLarge(f"the head of a request has at most {MAX_HEAD_BYTES} bytes, its path and query included"))
        else:
            self._refuse(BadFraming("this is no HTTP/1.1 request, or its body is not as long as its head says, or comes in tiny chunks"))

    def _watch_head(self) -> None:
        """Start or cancel the timer for a head: it runs for the first head, and for one that has come in part."""
        is_waiting = self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None
        if is_waiting and self._head_timer is None:
            self._head_timer = self.loop.call_later(self._settings.header_timeout_s, self._end_waiting)
        elif not is_waiting and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_waiting(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse(BodyTimedOut(f"the head of the request was not there after {self._settings.header_timeout_s:g} s"))
        else:
            self.transport.close()

    def _watch_rest(self) -> None:
        """Start or cancel the timer for a body that is still coming although its request is answered."""
        is_coming = self.cycle is not None and self.cycle.response_complete and self.conn.their_state is h11.SEND_BODY
        if is_coming and self._linger_timer is None:
            self._lingering_bytes = 0
            self._linger_timer = self.loop.call_later(DISCARD_TIMEOUT_S, self.transport.abort)
        elif not is_coming and self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None

    def _watch_reading(self) -> None:
        """Start the timer after which the client must have read some of the response."""
        self._unread_bytes = self.transport.get_write_buffer_size()
        if self._unread_bytes and self._read_timer is None:
            self._read_timer = self.loop.call_later(self._settings.answer_timeout_s, self._check_reading)

    def _check_reading(self) -> None:
        self._read_timer = None
        left = self.transport.get_write_buffer_size()
        if left and left > self._unread_bytes - MIN_READ_BYTES:
            self.transport.abort()
        else:
            self._watch_reading()

    def _refuse(self, error: Florence2Error) -> None:
        """Write an error, if nothing else has been written, and close."""
        cycle = self.cycle
        is_running = cycle is not None and not cycle.response_complete
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not (is_running and cycle.response_started):
            request_id = self._note(error)
            content = json.dumps(as_json(error, self._settings.help_root)).encode()
            headers = [
                *self.server_state.default_headers,
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
                (b"connection", b"close"),
                (self._settings.request_id_header.encode(), request_id.encode()),
            ]
            for event in (h11.Response(status_code=error.status, headers=headers), h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if is_running:  # the application's own response can't be sent any more
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()
        self._watch_reading()

    def _note(self, error: Florence2Error) -> str:
        """Count and log what is no request; the id that it gets."""
        fields = {"status": error.status, "client": (self.client or ("-",))[0], "request_id": uuid4().hex, "code": error.code}
        self._metrics.note_refusal(error.code)
        ACCESS.info("request", extra={FIELDS: fields})
        return fields["request_id"]


class _Parser(h11.Connection):
    """h11's parser, which refuses bodies in tiny chunks and remembers that a head was too large."""

    def __init__(self, role: Any, max_bytes: int) -> None:
        super().__init__(role, max_bytes)
        self.has_large_head = False
        self._num_chunks = self._num_bytes = 0

    def next_event(self) -> Any:
        """The next event."""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.has_large_head = error.error_status_hint == 431
            raise
        if isinstance(event, h11.Request):
            if event.http_version not in _VERSIONS:
                raise h11.RemoteProtocolError("another version of HTTP")
            self._num_chunks = self._num_bytes = 0
        elif isinstance(event, h11.Data):
            self._num_chunks += 1
            self._num_bytes += len(event.data)
            if self._num_chunks > FREE_CHUNKS and self._num_bytes < self._num_chunks * MIN_CHUNK_BYTES:
                raise h11.RemoteProtocolError("chunks of a few bytes each")
        return event
