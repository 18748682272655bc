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
from florence2.server.errors import ClientLeft, Draining, MethodNotAllowed, TryAgain, Unauthorized, as_json, for_client
from florence2.server.limits import Admission
from florence2.server.logs import ACCESS, FIELDS
from florence2.server.metrics import Metrics
from florence2.server.settings import Settings

logger = logging.getLogger(__name__)

QUIET_PATHS = frozenset({"/healthz", "/readiness", "/metrics"})  # asked for every few seconds
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
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
            "help_root": self._root() + "/docs/errors",
        }
        scope["state"] = state
        status, is_read = 0, headers.get("expect", "").lower() == "100-continue"  # such a client sends nothing until it is read

        async def watched() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = not message.get("more_body", False)
            return message

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[self._settings.request_id_header] = request_id
            await send(message)

        error: Florence2Error | None = None
        try:
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
            if not is_read:
                await _discard(receive)
            await _write(error, state["help_root"])(scope, receive, with_id)
        finally:
            self._note(scope, status, error)

    def _root(self) -> str:
        """What stands in front of the server's own paths; what the client calls it by (`Host`) is anybody's to write."""
        if self._settings.public_url is not None:
            return self._settings.public_url.rstrip("/")
        return self._settings.root_path

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
            "method": method,
            "path": scope["path"],
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
