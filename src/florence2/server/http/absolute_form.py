"""Requests whose target is a whole address, as clients send it to proxies: ``GET http://host:9001/healthz HTTP/1.1``.

Source: RFC 9112, section 3.2.2: a server accepts it, and its host counts, not the one of the header. Knows nothing of what paths mean.
"""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

_ADDRESS = re.compile(r"https?://(?P<host>[^/]+)(?P<path>.*)", re.IGNORECASE | re.DOTALL)


class AbsoluteForm:
    """Middleware that makes of such an address a path and a host.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as if it had come with the path alone."""
        if scope["type"] == "http" and (found := _ADDRESS.fullmatch(scope["path"])):
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            host = found["host"].encode("utf-8", "replace")
            scope = {**scope, "path": found["path"] or "/", "headers": [(b"host", host), *others]}
        await self._app(scope, receive, send)
