"""A server below a path: ``/florence2/infer/lmm`` is answered as ``/infer/lmm``.

Some proxies remove the prefix and some keep it; both work. Knows nothing of what the paths mean.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """Middleware that removes the prefix where there is one.

    Args:
        app: the application.
        prefix: begins with a slash and does not end in one; "" for none.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a path that begins at the server's own root."""
        if self._prefix and scope["type"] == "http":
            path: str = scope["path"]
            if path == self._prefix or path.startswith(self._prefix + "/"):
                scope = {**scope, "path": path.removeprefix(self._prefix) or "/"}
        await self._app(scope, receive, send)
