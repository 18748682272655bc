"""As many connections to one server as there are requests in flight, each used again as soon as it is free.

In: requests of httpx2. Out: open responses. A shared pool of httpx2 looks at all of its connections for each request, so that a thousand
in flight would slow down the generator itself; here a free connection is the top of a stack. Knows nothing of what is sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from florence2.certificates import certificates
from florence2.process_limits import raise_file_limit
from florence2.proxies import proxy_for


class Connections:
    """The connections to one server.

    Attributes:
        num_opened: how many there have been.

    Args:
        url: the server's address.
    """

    def __init__(self, url: str) -> None:
        raise_file_limit()
        proxy = proxy_for(url)
        self._proxy = httpx2.Proxy(proxy.url) if proxy else None
        self._free: list[httpx2.AsyncHTTPTransport] = []
        self.num_opened = 0

    @asynccontextmanager
    async def send(self, request: httpx2.Request) -> AsyncIterator[httpx2.Response]:
        """The response to a request, its body still to be read; a connection whose response is not read to its end is closed.

        Raises:
            httpx2.TransportError: there is no response.
        """
        connection = self._free.pop() if self._free else self._new()
        is_usable = False
        try:
            response = await connection.handle_async_request(request)
            try:
                yield response
                is_usable = True
            finally:
                await response.aclose()
        finally:
            if is_usable:
                self._free.append(connection)
            else:
                await connection.aclose()

    async def close(self) -> None:
        """Close those that are free."""
        while self._free:
            await self._free.pop().aclose()

    def _new(self) -> httpx2.AsyncHTTPTransport:
        self.num_opened += 1
        limits = httpx2.Limits(max_connections=1, max_keepalive_connections=1)
        return httpx2.AsyncHTTPTransport(verify=certificates(), trust_env=False, limits=limits, proxy=self._proxy)
