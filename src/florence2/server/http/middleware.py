"""What every request goes through: an id, a clean path, a form for errors, a line in the log, a count.

The outermost layer but CORS. Errors of all layers below end here and nowhere else, and what a request holds is given back here, once the
last byte of its response is sent. Knows nothing of what a request is about.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from florence2.errors import Florence2Error
from florence2.server.accounts.totals import Record
from florence2.server.errors import (
    BadFraming,
    BodyTimedOut,
    ClientLeft,
    Draining,
    HeadersTooLarge,
    MethodNotAllowed,
    Unauthorized,
    as_json,
    for_client,
    retry_after_s,
    shortened,
)
from florence2.server.http.api import Api, api_at
from florence2.server.http.deadline import allowed_s
from florence2.server.http.headers import header
from florence2.server.http.logs import ACCESS, FIELDS, shown_path
from florence2.server.http.metrics import Metrics
from florence2.server.http.request_notes import RequestNotes, ids, noting
from florence2.server.http.tracing import Tracing, end_request
from florence2.server.inference.admission import Admission
from florence2.server.settings import Settings

if TYPE_CHECKING:
    from florence2.server.accounts.meter import Meter

logger = logging.getLogger(__name__)

QUIET_PATHS = frozenset({"/healthz", "/readiness", "/metrics"})  # requested every few seconds
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CLOSING = (BadFraming, BodyTimedOut, HeadersTooLarge)
MAX_HEADERS = 100
MAX_HEAD_BYTES = 32 * 2**10  # of a request, its path and query included
MAX_LOGGED_CHARS = 200
# Most clients read no response before they have sent their body: the rest is read and discarded, up to so much.
DISCARDED_BYTES = 200 * 2**20
DISCARD_TIMEOUT_S = 10.0
# Headers of every response: what is sent is taken as what it is called, shown in no frame, and its address, which may hold a key, told to
# nobody. Pages have a policy of their own.
SAFETY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
_SAFETY = tuple((name.encode(), value.encode()) for name, value in SAFETY.items())
LAST_PART_S = 2.0  # for a client to take the error in the middle of its response
_SANE_ID = re.compile(r"[\w.:-]{1,128}")


class RequestMiddleware:
    """Middleware around everything that can fail.

    ``scope["state"]`` gets ``request_id``, ``started`` (by ``time.perf_counter``), ``deadline_s`` (how long it may take, see ``deadline``),
    ``help_root`` (the address of the page of errors) and ``until_sent``, an ``ExitStack`` that is closed when the response is sent to its
    last byte, has failed, or has lost its client. A response whose body can say that it has failed puts ``last_part`` there, which makes
    the bytes that say so of the error.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        apis: Sequence[Api],
        metrics: Metrics,
        admission: Admission,
        tracing: Tracing | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._app = app
        self._apis = apis
        self._settings = settings
        self._id_header = settings.request_id_header.lower().encode("latin-1")
        self._metrics = metrics
        self._admission = admission
        self._tracing = tracing
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request to its end, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # An address that ends in a slash makes clients ask for //infer/lmm.
        scope["path"] = re.sub(r"^/{2,}", "/", scope["path"])
        sent_id = header(scope, self._id_header)
        exchange = _Exchange(scope, receive, send)
        error: Florence2Error | None = None
        request_id = sent_id if _SANE_ID.fullmatch(sent_id) else uuid4().hex
        with noting(request_id) as notes, ExitStack() as until_sent:
            self._begin(scope, notes, until_sent)
            exchange.headers[self._settings.request_id_header] = request_id
            try:
                _check_head(scope)
                scope["state"]["deadline_s"] = allowed_s(scope, self._settings)
                await self._app(scope, exchange.receive, exchange.send)
            except asyncio.CancelledError:
                # A server that shuts down cancels the requests that are left when its time is up.
                if not self._admission.is_draining or (exchange.status and not exchange.can_fail):
                    raise
                error = Draining("the server has shut down before the answer was there; send the request again")
                if exchange.status:
                    await exchange.fail(error)
                else:
                    await self._response(exchange, error)(scope, receive, exchange.send)
            except Exception as raised:
                error = self._for_client(raised)
                if not await self._is_told(exchange, error):
                    raise
            finally:
                self._note(scope, exchange.status, error, notes)

    def _begin(self, scope: Scope, notes: RequestNotes, until_sent: ExitStack) -> None:
        """Give the request its state, and its trace a span."""
        scope["state"] = {
            **scope.get("state", {}),
            "started": time.perf_counter(),
            "request_id": notes.request_id,
            "help_root": self._settings.help_root,
            "until_sent": until_sent,
        }
        if self._tracing is not None and scope["path"] not in QUIET_PATHS:
            self._tracing.begin(notes, scope, scope["state"]["started"])

    async def _is_told(self, exchange: _Exchange, error: Florence2Error) -> bool:
        """Whether the client has been sent the error, or is not there any more; it may be too late for another response."""
        if not exchange.status:
            await self._respond(exchange, error)
        elif not isinstance(error, ClientLeft):
            if not exchange.can_fail:
                return False
            await exchange.fail(error)
        return True

    async def _respond(self, exchange: _Exchange, error: Florence2Error) -> None:
        """Send an error, and see to what of the request's body has not been read."""
        response = self._response(exchange, error)
        if isinstance(error, CLOSING) or (exchange.expects_continue and not exchange.is_read):
            response.headers["connection"] = "close"  # what follows, if anything does, is no request
        elif not exchange.is_read and exchange.is_closing:
            exchange.scope["state"]["until_sent"].close()  # a refused request holds nothing while the rest of its body comes in
            await _discard(exchange.receive)
        await response(exchange.scope, exchange.receive, exchange.send)

    def _response(self, exchange: _Exchange, error: Florence2Error) -> JSONResponse:
        """An error in the form of the API that the path belongs to."""
        api = api_at(self._apis, exchange.scope["path"])
        body = (as_json if api is None else api.error_body)(error, self._settings.help_root)
        return JSONResponse(body, status_code=error.status, headers=_headers_of(error))

    def _for_client(self, raised: Exception) -> Florence2Error:
        """The error as it is sent; an error of the server itself is logged with its traceback."""
        if isinstance(raised, ClientDisconnect):
            return ClientLeft("the client closed the connection")
        if not isinstance(raised, Florence2Error) or raised.status == 500:
            logger.error("request failed", exc_info=raised)
        return for_client(raised)

    def _note(self, scope: Scope, status: int, error: Florence2Error | None, notes: RequestNotes) -> None:
        """Count and log the request."""
        state, method = scope["state"], scope["method"]
        seconds = time.perf_counter() - state["started"]
        handler = getattr(scope.get("route"), "path", "none")
        counted = method if method in METHODS else "other"  # clients can invent any number of them
        self._metrics.note_request(handler, counted, status, seconds, error.code if error else None)
        if error is not None and self._meter is not None and state.get("key") is not None:
            self._meter.note(Record(int(time.time()), state["key"].name, state.get("model") or "", codes=(error.code,)))
        level = logging.DEBUG if scope["path"] in QUIET_PATHS else logging.INFO
        if not ACCESS.isEnabledFor(level) and notes.span is None:
            return
        fields = {
            "method": shortened(method, MAX_LOGGED_CHARS),
            "path": shown_path(scope["path"]),
            "status": status,
            "ms": round(seconds * 1000, 1),
            "client": (scope.get("client") or ("-",))[0],
            **ids(),
            "model": state.get("model"),
            "key": state.get("key_name") or None,
            "code": error.code if error else None,
            **notes.timings,
        }
        ACCESS.log(level, "request", extra={FIELDS: fields})
        end_request(notes, fields, handler, counted)


class _Exchange:
    """One request and its response, as far as they have got.

    Attributes:
        headers: headers that the response gets besides its own.
        status: the status that was sent; 0: none yet.
        is_read: the body of the request was received to its end.
        expects_continue: the client sends no body before it is asked for one.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.headers: dict[str, str] = {}
        self.status = 0
        self.is_read = False
        self.expects_continue = header(scope, b"expect").lower() == "100-continue"
        self._receive = receive
        self._send = send

    @property
    def is_closing(self) -> bool:
        """Whether the connection ends with the response; otherwise the rest of a body is read behind it (see ``connection.py``)."""
        return self.scope.get("http_version") == "1.0" or "close" in header(self.scope, b"connection").lower()

    async def receive(self) -> Message:
        """The next part of the request."""
        message = await self._receive()
        self.is_read, self.expects_continue = not message.get("more_body", False), False
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the response."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
            replaced = {name for name, _ in own}
            headers = [*(pair for pair in message["headers"] if pair[0] not in replaced), *own]
            present = {name for name, _ in headers}
            message["headers"] = [*headers, *(pair for pair in _SAFETY if pair[0] not in present)]
        await self._send(message)

    @property
    def can_fail(self) -> bool:
        """Whether the body of the response can still say that it has failed."""
        return "last_part" in self.scope["state"]

    async def fail(self, error: Florence2Error) -> None:
        """End a response that has begun with the error; a client that takes nothing is left."""
        last = {"type": "http.response.body", "body": self.scope["state"]["last_part"](error), "more_body": False}
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._send(last), LAST_PART_S)


def _check_head(scope: Scope) -> None:
    """Refuse a head that is too large, or that gives the body's length in a way that others might read otherwise.

    Raises:
        HeadersTooLarge: more lines or bytes than are taken.
        BadFraming: both a length and chunks, or chunks where there are none.
    """
    size = sum(len(name) + len(value) for name, value in scope["headers"]) + len(scope["query_string"]) + len(scope["path"])
    if len(scope["headers"]) > MAX_HEADERS or size > MAX_HEAD_BYTES:
        raise HeadersTooLarge(
            f"a request has at most {MAX_HEADERS} headers and {MAX_HEAD_BYTES} bytes of them, its path and query included; "
            f"got {len(scope['headers'])} and {size}"
        )
    names = {name for name, _ in scope["headers"]}
    if b"transfer-encoding" in names and (b"content-length" in names or scope.get("http_version") == "1.0"):
        raise BadFraming("Transfer-Encoding stands beside Content-Length, or in HTTP/1.0: send one of them, in HTTP/1.1")


async def _discard(receive: Receive) -> None:
    """Read what is left of a body, within limits: most clients read no response before they have sent all of it."""

    async def take() -> None:
        left = DISCARDED_BYTES
        more = True
        while more and left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            more = message.get("more_body", False)

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(take(), DISCARD_TIMEOUT_S)


def _headers_of(error: Florence2Error) -> dict[str, str]:
    """The headers that go with an error."""
    headers: dict[str, str] = {}
    if (seconds := retry_after_s(error)) is not None:
        headers["retry-after"] = str(seconds)
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = error.allowed
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return headers
