"""Fetching by URL within a policy, protected against server-side request forgery.

A name is resolved once, its addresses are checked, and the connection is made to a checked address; a redirect is checked in the same way.
Time, bytes, redirects and the size of decompressed bodies are limited while the response streams in. In: a URL. Out: bytes, or a
``FetchError`` with the reason. Knows nothing of images, and keeps no cookies.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import re
import socket
import threading
import warnings
import zlib
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import aclosing, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ssl import SSLContext
from typing import Any, TypeVar

import httpcore2
import httpx2

from florence2 import url_policy
from florence2.certificates import certificate_hint, certificates
from florence2.errors import InvalidOption
from florence2.proxies import Proxy, proxy_for
from florence2.url_policy import FetchError, FetchPolicy

T = TypeVar("T")

MAX_HEAD_BYTES = 2**18
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_UNREAD_CODINGS = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})
_MARKUP = ("text/html", "application/json", "application/xhtml+xml")
_CONTENT_RANGE = re.compile(r"bytes\s+(\d+)-(\d+)/(\d+|\*)")


class Fetcher:
    """Fetches by URL within a policy.

    Args:
        policy: the limits of fetching.
        user_agent: the ``User-Agent`` header.
    """

    def __init__(self, policy: FetchPolicy, user_agent: str) -> None:
        self._policy = policy
        self._client = httpx2.AsyncClient(
            transport=_Route(policy),
            trust_env=False,  # no .netrc either: its passwords must not be sent for URLs of other users
            timeout=httpx2.Timeout(policy.timeout_s, connect=policy.connect_timeout_s or policy.timeout_s),
            cookies=no_cookies(),
            headers={"User-Agent": user_agent, "Accept": "image/*", "Accept-Encoding": "identity"},
        )

    async def fetch(self, url: object) -> bytes:
        """The body that a URL returns.

        Raises:
            FetchError: the URL is invalid or not allowed, or the fetch failed.
        """
        try:
            return await asyncio.wait_for(self._follow(self._policy.checked(url)), self._policy.timeout_s)
        except (TimeoutError, httpx2.TimeoutException) as error:
            is_connecting = isinstance(error, httpx2.ConnectTimeout) and self._policy.connect_timeout_s
            seconds = self._policy.connect_timeout_s if is_connecting else self._policy.timeout_s
            raise FetchError("time", f"It took longer than {seconds:g} s.") from None
        except httpx2.RemoteProtocolError:  # raised by httpx2 before 2.16, which parses the target of a redirect
            raise FetchError("content", "The host redirects to what is no URL.") from None
        except httpx2.TransportError as error:
            reasons = (str(error)[:200] or type(error).__name__, certificate_hint(error))
            raise FetchError("connection", f"The host could not be reached ({'; '.join(filter(None, reasons))}).") from None

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _follow(self, url: httpx2.URL) -> bytes:
        """The body after all redirects, each of which is checked."""
        for _ in range(self._policy.max_redirects + 1):
            async with self._client.stream("GET", url) as response:
                if response.status_code not in REDIRECTS or "location" not in response.headers:
                    return await self._read(response)
                url = self._policy.redirected(url, response.headers["location"])
        raise FetchError("redirects", f"There are more than {self._policy.max_redirects} redirects.")

    async def _read(self, response: httpx2.Response) -> bytes:
        """The body of a response, with status, size and type checked."""
        _check_status(response)
        body = _Body(response.headers.get("content-encoding", ""), self._policy.max_bytes)
        announced = response.headers.get("content-length", "")
        if announced.isdecimal() and len(announced) < 20 and int(announced) > self._policy.max_bytes:
            raise body.too_large
        num_bytes = 0
        try:
            async for chunk in response.aiter_raw():
                num_bytes += len(chunk)
                body.feed(chunk)
        except httpx2.TimeoutException:
            raise
        except httpx2.TransportError:
            of_all = f" of {announced}" if announced.isdecimal() else ""
            raise FetchError("connection", f"The host broke off after {num_bytes}{of_all} bytes.") from None
        data = body.finish()
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        # Some hosts declare images as HTML, so the first character decides.
        if kind in _MARKUP and data.lstrip()[:1] in (b"<", b"{", b"["):
            raise FetchError("not_image", f"The URL holds {kind}.")
        return data


def fetch_blocking(policy: FetchPolicy, user_agent: str, url: object) -> bytes:
    """The body that a URL returns, for callers that can't await; works inside a running event loop too."""

    async def once() -> bytes:
        fetcher = Fetcher(policy, user_agent)
        try:
            return await fetcher.fetch(url)
        finally:
            await fetcher.close()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(once())
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(_caught(once())), name="florence2-fetch", daemon=True)
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def no_cookies() -> CookieJar:
    """A cookie jar that accepts no cookies, so that none is sent to another host or for another caller."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, run in a new event loop.

    Unlike ``asyncio.run`` it does not change the thread's event loop, and does not wait for a name resolution that hangs.
    """
    loop = asyncio.new_event_loop()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    finally:
        if not task.done():  # Ctrl-C
            task.cancel()
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        loop.close()


def _caught(coroutine: Coroutine[Any, Any, T]) -> T | BaseException:
    try:
        return _run(coroutine)
    except BaseException as error:
        return error


def _check_status(response: httpx2.Response) -> None:
    """Check that the response is a success and not partial."""
    status = response.status_code
    if not 200 <= status < 300:
        retry_after = response.headers.get("retry-after")
        raise FetchError("status", f"The host answered with status {status}.", status=status, retry_after=retry_after)
    part = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip().lower())
    is_whole = part is None or (int(part[1]) == 0 and part[3] in ("*", str(int(part[2]) + 1)))
    if status == 206 and (not is_whole or response.headers.get("content-type", "").lower().startswith("multipart/")):
        raise FetchError("content", "The host sent a part of it only (status 206), though all was asked for.")


class _Body:
    """A body that is received in chunks and decompressed up to a limit."""

    def __init__(self, codings: str, max_bytes: int) -> None:
        self.too_large = FetchError("too_large", f"The URL holds more than {max_bytes} bytes")
        self._max_bytes = max_bytes
        named = [coding.strip().lower() for coding in codings.split(",")]
        unread = [coding for coding in named if coding in _UNREAD_CODINGS]
        compressions = [coding for coding in named if coding in ("gzip", "x-gzip", "deflate")]
        if unread or len(compressions) > 1:
            shown = unread[0] if unread else ", ".join(compressions)[:40]
            raise FetchError("content", f"The host sent it compressed ({shown}), though that was not asked for.")
        self._coding = compressions[0].removeprefix("x-") if compressions else None
        self._is_begun = False
        self._decompress: Any = None
        self._data = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Add the next chunk."""
        if not self._is_begun and chunk:
            self._is_begun = True
            self._decompress = _decompressor(self._coding, chunk)
        if self._decompress is None:
            self._data += chunk
        elif not self._decompress.eof:
            try:
                self._data += self._decompress.decompress(chunk, self._max_bytes + 1 - len(self._data))
            except zlib.error:
                raise FetchError("content", f"The host sent it compressed ({self._coding}), and damaged.") from None
        if len(self._data) > self._max_bytes:
            raise self.too_large

    def finish(self) -> bytes:
        """The whole body."""
        if self._decompress is not None and not self._decompress.eof:
            raise FetchError("connection", f"The host broke off within the compressed body ({self._coding}).")
        if not self._data:
            raise FetchError("content", "The URL holds nothing.")
        return bytes(self._data)


def _decompressor(coding: str | None, start: bytes) -> Any:
    """The decompressor for a body with this start; None if it is not compressed, whatever the header says."""
    if coding == "gzip":
        return zlib.decompressobj(16 + zlib.MAX_WBITS) if start[:1] == b"\x1f" else None
    if coding == "deflate":
        has_header = len(start) > 1 and start[0] & 15 == 8 and int.from_bytes(start[:2], "big") % 31 == 0
        return zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
    return None


class _CheckedBackend(httpcore2.AsyncNetworkBackend):
    """A network backend that connects only to addresses that it has resolved and checked."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._backend: httpcore2.AsyncNetworkBackend = httpcore2.AnyIOBackend()  # type: ignore[assignment]

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the first address of the host that accepts one."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise httpcore2.ConnectError("its name is not known") from None
        addresses = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
        if not self._allow_private:
            addresses = [address for address in addresses if url_policy.is_public(ipaddress.ip_address(address))]
        if not addresses:
            raise _not_public()
        refused: Exception = httpcore2.ConnectError(host)
        for address in addresses:
            try:
                return _HeadBound(await self._backend.connect_tcp(address, port, timeout, local_address, socket_options))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                refused = error
        raise refused

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Refuse Unix sockets."""
        raise _not_public()

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""
        await asyncio.sleep(seconds)


class _HeadBound(httpcore2.AsyncNetworkStream):
    """A connection on which little may come before the response has begun: interim responses without end cost time of the event loop."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left: float = MAX_HEAD_BYTES

    def release(self) -> None:
        """Let everything through: the head is there."""
        self._left = math.inf

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Some bytes."""
        if self._left <= 0:
            raise httpcore2.RemoteProtocolError("no response within its first 256 KiB")
        data = await self._stream.read(max_bytes, timeout)
        self._left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None) -> _HeadBound:
        """The connection, encrypted from here on."""
        return _HeadBound(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """What the connection says of itself."""
        return self._stream.get_extra_info(info)


class _Route(httpx2.AsyncBaseTransport):
    """A transport that sends each request to a checked address, or through a proxy if the policy allows it."""

    def __init__(self, policy: FetchPolicy) -> None:
        self._policy = policy
        # No connection is reused: the same name may resolve to another address at the next fetch.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=certificates(),
            network_backend=_CheckedBackend(policy.allow_private),
            max_keepalive_connections=0,
            # Callers limit concurrent requests; with a limit here, slow hosts would delay fetches from other hosts.
            max_connections=None,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        proxy = self._proxy(request.url) if self._policy.by_proxy else None
        if proxy is not None:
            return await self._by_proxy(request, proxy)
        url = httpcore2.URL(scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path)
        try:
            response = await self._pool.handle_async_request(
                httpcore2.Request(request.method, url, headers=request.headers.raw, content=b"", extensions=request.extensions)
            )
        except httpcore2.ConnectTimeout as error:
            raise httpx2.ConnectTimeout(str(error), request=request) from error
        except httpcore2.TimeoutException as error:
            raise httpx2.TimeoutException(str(error), request=request) from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol) as error:
            raise httpx2.TransportError(str(error), request=request) from error
        stream = response.extensions.get("network_stream")
        if isinstance(stream, _HeadBound):
            stream.release()
        return httpx2.Response(response.status, headers=response.headers, stream=_Stream(response), extensions=response.extensions)

    async def aclose(self) -> None:
        """Close the pool."""
        await self._pool.aclose()

    def _proxy(self, url: httpx2.URL) -> Proxy | None:
        try:
            proxy = proxy_for(str(url))
        except InvalidOption as error:
            raise FetchError("content", error.message) from None
        if proxy is not None and not self._policy.allow_private:
            with suppress(ValueError):
                if not url_policy.is_public(ipaddress.ip_address(url_policy.canonical_host(url))):
                    raise _not_public()
            warnings.warn(
                f"the proxy {proxy} resolves the hosts of images: whether their addresses are public can't be checked", stacklevel=2
            )
        return proxy

    async def _by_proxy(self, request: httpx2.Request, proxy: Proxy) -> httpx2.Response:
        transport = httpx2.AsyncHTTPTransport(
            verify=certificates(), trust_env=False, proxy=httpx2.Proxy(proxy.url), limits=httpx2.Limits(max_keepalive_connections=0)
        )
        try:
            return await transport.handle_async_request(request)
        except httpx2.TimeoutException:
            raise
        except httpx2.TransportError as error:
            raise httpx2.TransportError(f"by the proxy {proxy}: {str(error) or type(error).__name__}") from error


class _Stream(httpx2.AsyncByteStream):
    """The body of a response as a stream."""

    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async with aclosing(self._response.aiter_stream()) as chunks:
                async for chunk in chunks:
                    yield chunk
        except httpcore2.TimeoutException as error:
            raise httpx2.TimeoutException(str(error)) from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise httpx2.TransportError(str(error)) from error

    async def aclose(self) -> None:
        """Close the response."""
        await self._response.aclose()


def _not_public() -> FetchError:
    return FetchError("address", "The host is not on the public internet.")
