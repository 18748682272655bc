"""The HTTP clients whose connections are used: each request goes directly or by the proxy that the environment names for its address.

In: nothing. Out: a client of httpx2, blocking or awaited, without cookies. Knows nothing of requests, retries or answers.
"""

from __future__ import annotations

from typing import Any

import httpx2

from florence2.certificates import certificates
from florence2.proxies import Proxy, proxy_for
from florence2.url_fetch import no_cookies


def blocking_client() -> httpx2.Client:
    """A client whose requests go by the environment's proxies; how many are under way is bounded elsewhere."""
    return httpx2.Client(transport=_Route(), trust_env=False, cookies=no_cookies())


def awaiting_client() -> httpx2.AsyncClient:
    """As ``blocking_client``, awaited."""
    return httpx2.AsyncClient(transport=_AsyncRoute(), trust_env=False, cookies=no_cookies())


class _Route(httpx2.BaseTransport):
    """Sends each request directly or by the proxy that the environment names for its address."""

    def __init__(self) -> None:
        self._ways: dict[str | None, httpx2.HTTPTransport] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        proxy = proxy_for(str(request.url))
        key = proxy.url if proxy else None
        if key not in self._ways:
            self._ways[key] = httpx2.HTTPTransport(**_transport_settings(proxy))
        return self._ways[key].handle_request(request)

    def close(self) -> None:
        """Close what is open."""
        for way in self._ways.values():
            way.close()


class _AsyncRoute(httpx2.AsyncBaseTransport):
    """As ``_Route``, awaited."""

    def __init__(self) -> None:
        self._ways: dict[str | None, httpx2.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        proxy = proxy_for(str(request.url))
        key = proxy.url if proxy else None
        if key not in self._ways:
            self._ways[key] = httpx2.AsyncHTTPTransport(**_transport_settings(proxy))
        return await self._ways[key].handle_async_request(request)

    async def aclose(self) -> None:
        """Close what is open."""
        for way in self._ways.values():
            await way.aclose()


def _transport_settings(proxy: Proxy | None) -> dict[str, Any]:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
    return {
        "verify": certificates(),
        "trust_env": False,
        "limits": limits,
        "proxy": httpx2.Proxy(proxy.url) if proxy else None,
    }
