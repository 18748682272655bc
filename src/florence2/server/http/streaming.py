"""Work that ends when its client leaves or its time is up: before the response, and while a response is streamed.

Knows nothing of what the work is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from florence2.server.errors import ClientLeft
from florence2.server.http.deadline import seconds_left, timed_out

Value = TypeVar("Value")


async def unless_client_leaves(request: Request, work: Coroutine[Any, Any, Value]) -> Value:
    """The result of ``work``, which is cancelled when the client leaves or the request's time is up.

    It is awaited where it is: a task of its own would cost several turns of the event loop more.

    Raises:
        ClientLeft: the client closed the connection.
        TimedOut: the time is up.
    """
    left = asyncio.ensure_future(_client_left(request.receive))
    limit = asyncio.timeout(seconds_left(request.scope))

    def end(_: asyncio.Future[None]) -> None:
        with suppress(RuntimeError):  # the time is up already
            limit.reschedule(0.0)

    try:
        async with limit:
            left.add_done_callback(end)
            try:
                return await work
            finally:
                left.remove_done_callback(end)
    except Exception:  # of the work itself, or what became of its being cancelled
        if not limit.expired():
            raise
    finally:
        left.cancel()
    if left.done() and not left.cancelled():
        raise ClientLeft("the client closed the connection")
    raise timed_out(request.scope)


class StreamedResponse(Response):
    """A response whose body is made while it is sent.

    Its head is sent with the first part of the body: an error before that is an ordinary one. When the client leaves, the request's time
    is up or the server ends, the generator is cancelled where it waits, and closed in any case: what it does in ``finally`` is done before
    the request counts as over.

    Args:
        parts: the body.
        media_type: its content type.
        headers: further headers; read when the head is sent.
    """

    def __init__(
        self,
        parts: AsyncGenerator[bytes, None],
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._parts = parts
        self._further_headers = headers
        self.status_code = 200
        self.media_type = media_type
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the parts until they, the client or the time are gone.

        Raises:
            ClientLeft: the client closed the connection.
            TimedOut: the time is up.
        """
        async with aclosing(self._parts):
            sending, left = asyncio.ensure_future(self._send_all(send)), asyncio.ensure_future(_client_left(receive))
            try:
                await asyncio.wait({sending, left}, timeout=seconds_left(scope), return_when=asyncio.FIRST_COMPLETED)
            finally:
                is_sent, has_left = sending.done(), left.done()
                for task in (sending, left):
                    task.cancel()
                await asyncio.wait({sending, left})
            if is_sent:
                return sending.result()
            if has_left:
                left.result()  # an error of ``receive`` itself, if there is one
                raise ClientLeft("the client closed the connection")
            raise timed_out(scope)

    async def _send_all(self, send: Send) -> None:
        has_begun = False
        async for part in self._parts:
            if not has_begun:
                await self._send_head(send)
                has_begun = True
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if not has_begun:
            await self._send_head(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_head(self, send: Send) -> None:
        self.init_headers(self._further_headers)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})


async def _client_left(receive: Receive) -> None:
    """Return when the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
