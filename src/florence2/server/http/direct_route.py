"""Routes whose function reads its request by itself: it is called without FastAPI's reading and checking of arguments.

That costs a tenth of what the server does for a request. The route is described like any other, and arguments of its query that are to be
checked are, where a request has one. Knows nothing of what routes do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response


class DirectRoute(APIRoute):
    """A route of an asynchronous function of the request and of parts of its path, which returns a whole response."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request; see FastAPI."""
        checked = super().get_route_handler()
        is_direct = self.response_model is None and self.body_field is None and not self.dependencies
        # A name may be written with percent signs.
        names = [b"%", *(parameter.alias.encode() for parameter in self.dependant.query_params)]
        return _Direct(self.endpoint, checked, names) if is_direct else checked


class _Direct:
    """Calls the function of a route.

    Args:
        function: the function.
        checked: FastAPI's own way to it.
        names: a query that holds none of these has no arguments for it.
    """

    def __init__(
        self, function: Callable[..., Awaitable[Response]], checked: Callable[[Request], Awaitable[Response]], names: list[bytes]
    ) -> None:
        self._function, self._checked, self._names = function, checked, names

    async def __call__(self, request: Request) -> Response:
        query: bytes = request.scope["query_string"]
        if query and any(name in query for name in self._names):
            return await self._checked(request)
        return await self._function(request, **request.path_params)
