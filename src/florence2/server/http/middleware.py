"""What every request goes through: an id, a clean path, a form for errors, a line in the log, a count.

The outermost layer but CORS. Errors of all layers below end here and nowhere else. Knows nothing of what a request is about.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from florence2.errors import Florence2Error
from florence2.server.errors import (
    BadFraming,
    BodyTimedOut,
    ClientLeft,
    Draining,
    HeadersTooLarge,
    MethodNotAllowed,
    TryAgain,
    Unauthorized,
    as_json,
    for_client,
    shortened,
)
from florence2.server.http.logs import ACCESS, FIELDS
from florence2.server.http.metrics import Metrics
from florence2.server.inference.admission import MAX_HEAD_BYTES, Admission
from florence2.server.settings import Settings

logger = logging.getLogger(__name__)

QUIET_PATHS = frozenset({"/healthz", "/readiness", "/metrics"})  # asked for every few seconds
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CLOSING = (BadFraming, BodyTimedOut, HeadersTooLarge)
MAX_HEADERS = 100
MAX_LOGGED_CHARS = 200
DISCARDED_BYTES = 200 * 2**20
DISCARD_PATIENCE_S = 10.0
_SANE_ID = re.compile(r"[\w.:-]{1,128}")


class Envelope:
    """Middleware around everything that can fail."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, admission: Admission) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request to its end, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # An address that ends in a slash makes clients ask for //infer/lmm.
        scope["path"] = re.sub(r"^/{2,}", "/", scope["path"])
        headers = Headers(scope=scope)
        sent_id = headers.get(self._settings.request_id_header, "")
        request_id = sent_id if _SANE_ID.fullmatch(sent_id) else uuid4().hex
        state: dict[str, Any] = {
            **scope.get("state", {}),
            "started": time.perf_counter(),
            "request_id": request_id,
            "help_root": self._settings.help_root,
        }
        scope["state"] = state
        status, is_read = 0, False
        expects = headers.get("expect", "").lower() == "100-continue"  # such a client sends nothing until it is read

        async def watched() -> Message:
            nonlocal is_read, expects
            message = await receive()
            is_read, expects = not message.get("more_body", False), False
            return message

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[self._settings.request_id_header] = request_id
            await send(message)

        error: Florence2Error | None = None
        try:
            _check_head(scope, headers)
            await self._app(scope, watched, with_id)
        except asyncio.CancelledError:
            # At the end of its patience a server that shuts down cancels what is left.
            if status or not self._admission.is_draining:
                raise
            error = Draining("the server has shut down before the answer was there; send the request again")
            await _write(error, state["help_root"])(scope, receive, with_id)
        except Exception as raised:
            error = self._for_client(raised, request_id)
            if status:  # too late to say anything else
                raise
            response = _write(error, state["help_root"])
            if isinstance(error, CLOSING) or (expects and not is_read):
                response.headers["connection"] = "close"  # what follows, if anything does, is no request
            elif not is_read and _closes(scope, headers):
                await _discard(receive)
            await response(scope, receive, with_id)
        finally:
            self._note(scope, status, error)

    def _for_client(self, raised: Exception, request_id: str) -> Florence2Error:
        """The error as it is sent; the server's own faults are logged with all that is known."""
        if isinstance(raised, ClientDisconnect):
            return ClientLeft("the client closed the connection")
        if not isinstance(raised, Florence2Error) or raised.status == 500:
            logger.error("request failed", exc_info=raised, extra={FIELDS: {"request_id": request_id}})
        return for_client(raised)

    def _note(self, scope: Scope, status: int, error: Florence2Error | None) -> None:
        """Count and log what has happened."""
        state, method = scope["state"], scope["method"]
        seconds = time.perf_counter() - state["started"]
        handler = getattr(scope.get("route"), "path", "none")
        counted = method if method in METHODS else "other"  # anybody can invent some
        self._metrics.requests.labels(handler, counted, str(status)).inc()
        self._metrics.durations.labels(handler, counted).observe(seconds)
        fields = {
            "method": shortened(method, MAX_LOGGED_CHARS),
            "path": shortened(scope["path"], MAX_LOGGED_CHARS),
            "status": status,
            "ms": round(seconds * 1000, 1),
            "client": (scope.get("client") or ("-",))[0],
            "request_id": state["request_id"],
            "model": state.get("model"),
            "key": state.get("key_name") or None,
            "code": error.code if error else None,
        }
        level = logging.DEBUG if scope["path"] in QUIET_PATHS else logging.INFO
        ACCESS.log(level, "request", extra={FIELDS: fields})


def _check_head(scope: Scope, headers: Headers) -> None:
    """Refuse a head that is too large, or that tells the body's length in a way that others might read otherwise.

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
    if "transfer-encoding" in headers and ("content-length" in headers or scope.get("http_version") == "1.0"):
        raise BadFraming("Transfer-Encoding stands beside Content-Length, or in HTTP/1.0: send one of them, in HTTP/1.1")


def _closes(scope: Scope, headers: Headers) -> bool:
    """Whether the connection ends with the answer; otherwise the rest of a body is taken in behind it (see ``connection.py``)."""
    return scope.get("http_version") == "1.0" or "close" in headers.get("connection", "").lower()


async def _discard(receive: Receive) -> None:
    """Take in what is left of a body, within bounds: most clients read no answer before they have sent everything."""

    async def take() -> None:
        left = DISCARDED_BYTES
        more = True
        while more and left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            more = message.get("more_body", False)

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(take(), DISCARD_PATIENCE_S)


def _write(error: Florence2Error, help_root: str) -> JSONResponse:
    """An error as a response."""
    headers: dict[str, str] = {}
    if isinstance(error, TryAgain) or error.status == 503:
        headers["retry-after"] = str(getattr(error, "retry_after_s", 1))
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = error.allowed
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(as_json(error, help_root), status_code=error.status, headers=headers)
