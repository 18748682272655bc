"""Images by URL, without becoming a way into the network that the server stands in.

A name is resolved once, the addresses are checked, and the connection goes to a checked address, at every redirect anew. Time,
bytes and redirects are bounded while the answer streams in. In: a URL. Out: bytes. Knows nothing of images.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpcore
import httpx

from florence2 import __version__
from florence2.errors import InvalidImage
from florence2.server.errors import ImageTooLarge
from florence2.server.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CAUSE = "Could not load input image. Cause: "
NOT_DECODED = "Data pointed by URL could not be decoded into image."
MAX_URL_CHARS = 8192
# Not for the public, and not known as such to every version of Python: IANA's special-purpose registries, and RFC 3879.
NOT_PUBLIC = tuple(ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "fec0::/10", "3fff::/20"))
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def refusal(cause: str) -> InvalidImage:
    """The error that clients know for an image that can't be had."""
    return InvalidImage(CAUSE + cause, field="image")


class Fetcher:
    """Fetches by URL within what the settings allow."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._allowed = {host.lower() for host in settings.url_allow_list}
        self._denied = {host.lower() for host in settings.url_deny_list}
        # No proxies and no .netrc: behind them, the address connected to would not be the one checked.
        self._client = httpx.AsyncClient(
            transport=_PinnedTransport(settings.allow_private_urls),
            trust_env=False,
            timeout=settings.url_timeout_s,
            # No cookie of one caller's host is kept for the next caller.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"User-Agent": f"florence2/{__version__}", "Accept": "image/*", "Accept-Encoding": "identity"},
        )

    async def fetch(self, url: object) -> bytes:
        """What a URL holds.

        Raises:
            InvalidImage: the URL is malformed or not allowed, or there is nothing to be had from it.
            ImageTooLarge: more bytes than are taken.
        """
        try:
            return await asyncio.wait_for(self._follow(self._checked(url)), self._settings.url_timeout_s)
        except (asyncio.TimeoutError, httpx.TimeoutException):
            raise refusal(f"{NOT_DECODED} It took longer than {self._settings.url_timeout_s:g} s.") from None
        except _Forbidden:
            raise refusal("URL points to a network destination that is not allowed.") from None
        except httpx.TransportError as error:
            raise refusal(f"{NOT_DECODED} The host could not be reached ({type(error).__name__}).") from None

    async def close(self) -> None:
        """Close what is open."""
        await self._client.aclose()

    async def _follow(self, url: httpx.URL) -> bytes:
        """Go where the redirects lead, checking each."""
        for _ in range(self._settings.max_url_redirects + 1):
            async with self._client.stream("GET", url) as response:
                if response.next_request is None:
                    return await self._read(response)
                url = self._checked(str(response.next_request.url))
        raise refusal(f"{NOT_DECODED} There are more than {self._settings.max_url_redirects} redirects.")

    async def _read(self, response: httpx.Response) -> bytes:
        """The body, as long as it is an image's and not too large."""
        if response.status_code != 200:
            raise refusal(f"{NOT_DECODED} The host answered with status {response.status_code}.")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in ("text/html", "application/json", "application/xhtml+xml"):
            raise refusal(f"Data is not image. The URL holds {kind}.")
        limit = self._settings.max_body_bytes
        too_large = ImageTooLarge(f"{CAUSE}The URL holds more than {limit} bytes; send a smaller image.", field="image")
        if response.headers.get("content-length", "").isdecimal() and int(response.headers["content-length"]) > limit:
            raise too_large
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > limit:
                raise too_large
        if not data:
            raise refusal(f"{NOT_DECODED} The URL holds nothing.")
        return bytes(data)

    def _checked(self, value: object) -> httpx.URL:
        """A URL that may be fetched, as far as it can be told without resolving its host."""
        here = "in this configuration of `inference`."  # the words that known clients look for
        if not self._settings.allow_urls:
            raise refusal(f"Providing images via URL is not supported {here}")
        url = _parsed(value)
        if url.scheme != "https" and not (url.scheme == "http" and self._settings.allow_http_urls):
            raise refusal(f"Providing images via non https:// URL is not supported {here}")
        if url.userinfo:
            raise refusal("Provided image URL is invalid. It must not hold a user name or password.")
        host = url.host.lower().rstrip(".")
        if not self._settings.allow_urls_without_domain and not _has_domain(host):
            raise refusal(f"Providing images via URL without FQDN is not supported {here}")
        if self._allowed and host not in self._allowed:
            raise refusal("It is not allowed to reach image URL - prohibited by whitelisted destinations.")
        if host in self._denied:
            raise refusal("It is not allowed to reach image URL - prohibited by blacklisted destinations.")
        return url


def _parsed(value: object) -> httpx.URL:
    """A URL with a scheme and a host."""
    invalid = refusal("Provided image URL is invalid. Expected https://host/path.")
    if not isinstance(value, str) or not value.strip() or "\\" in value or len(value) > MAX_URL_CHARS:
        raise invalid
    try:
        url = httpx.URL(value.strip())
        # Asking for the host decodes it, which fails for names that are no names.
        is_whole = bool(url.scheme) and (url.scheme not in ("http", "https") or bool(url.host))
    except (httpx.InvalidURL, ValueError, TypeError):
        raise invalid from None
    if not is_whole or url.port == 0 or (url.port or 0) > 65535 or any(sign.isspace() for sign in value.strip()):
        raise invalid
    return url


def _has_domain(host: str) -> bool:
    """Whether a host is a name with a domain: no address in any notation, no single word."""
    last = host.rpartition(".")[2]
    return "." in host and ":" not in host and not last.isdecimal() and not last.startswith("0x")


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, also when it stands for an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour is not None or address.teredo is not None:  # tunnels into who knows what, long out of use
            return False
    if any(address in network for network in NOT_PUBLIC if network.version == address.version):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


class _Forbidden(Exception):
    """A host without an address that may be connected to."""


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were resolved and checked here, and to nothing else."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._backend: httpcore.AsyncNetworkBackend = httpcore.AnyIOBackend()  # type: ignore[assignment]

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first of the host's addresses that takes one."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        addresses = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
        if not self._allow_private:
            addresses = [address for address in addresses if is_public(ipaddress.ip_address(address))]
        if not addresses:
            raise _Forbidden(host)
        refused: Exception = httpcore.ConnectError(host)
        for address in addresses:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:  # noqa: PERF203 - the next address may take it
                refused = error
        raise refused

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise _Forbidden(path)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


@lru_cache(maxsize=1)
def _trusted() -> ssl.SSLContext:
    """The certificates that are trusted. Reading them takes a while, and they are the same for all."""
    return httpx.create_ssl_context(trust_env=False)


class _PinnedTransport(httpx.AsyncBaseTransport):
    """httpx over a connection pool whose connections are made by the checked backend."""

    def __init__(self, allow_private: bool) -> None:
        # No connection is kept: the next fetch may be from another network's view of the same name.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            network_backend=_CheckedBackend(allow_private),
            max_keepalive_connections=0,
            # Requests under way are bounded already; a bound here would let slow hosts hold up the fetches from others.
            max_connections=None,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        url = httpcore.URL(scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path)
        try:
            response = await self._pool.handle_async_request(
                httpcore.Request(request.method, url, headers=request.headers.raw, content=b"", extensions=request.extensions)
            )
        except httpcore.TimeoutException as error:
            raise httpx.TimeoutException(str(error), request=request) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            raise httpx.TransportError(str(error), request=request) from error
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response), extensions=response.extensions)

    async def aclose(self) -> None:
        """Close the pool."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """An answer's body as it comes in."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_stream():
                yield chunk
        except httpcore.TimeoutException as error:
            raise httpx.TimeoutException(str(error)) from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise httpx.TransportError(str(error)) from error

    async def aclose(self) -> None:
        """Give the connection back."""
        await self._response.aclose()
