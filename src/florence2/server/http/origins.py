"""Which pages of the web may call: ``Origin`` and ``Host`` are checked before anything else of a request.

A browser lets every page send requests to a server on its user's own machine, and a name that an attacker owns can be made to point there
(DNS rebinding). So requests of foreign pages are refused unless a setting names them, and a server without keys that listens to its own
machine answers only to names that nobody else can own. Programs send no ``Origin`` and are not checked. Knows nothing of routes.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from florence2.server.errors import OriginRefused
from florence2.server.http.headers import header
from florence2.server.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OWN_SUFFIXES = (".localhost", ".local", ".internal", ".lan", ".home.arpa")  # nobody can register these


class Origins:
    """Middleware that refuses requests of foreign pages.

    Args:
        app: what answers the others.
        settings: the origins and hosts that are allowed.
        has_keys: whether requests need a key. A page that knows one was given it, so ``Host`` is not checked then.
    """

    def __init__(self, app: ASGIApp, settings: Settings, has_keys: bool) -> None:
        self._app = app
        self._allowed = set(settings.allow_origins)
        self._hosts = {host.lower() for host in settings.allow_hosts} | {settings.host.lower()}
        self._public = None if settings.public_url is None else _origin_of(settings.public_url)
        self._has_keys = has_keys
        self._is_local = is_loopback(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or raise ``OriginRefused``."""
        if scope["type"] == "http":
            self._check(scope)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        host, origin = header(scope, b"host").lower(), header(scope, b"origin").lower()
        if self._is_local and not self._has_keys and not self._is_own(host):
            raise OriginRefused(
                f"this server does not answer to the name {host[:100]!r}; name it in the setting allow_hosts, or ask for keys"
            )
        if origin and not self._may_call(origin, scope["scheme"], host):
            raise OriginRefused(f"pages of {origin[:100]!r} may not call this server; name the origin in the setting allow_origins")
        is_foreign = not origin and header(scope, b"sec-fetch-site") in ("cross-site", "same-site")
        if is_foreign and scope["method"] not in SAFE_METHODS and "*" not in self._allowed:
            raise OriginRefused("another site's page may not send this; name its origin in the setting allow_origins")

    def _may_call(self, origin: str, scheme: str, host: str) -> bool:
        """Whether pages of this origin may send requests: those that are named, and the server's own."""
        if "*" in self._allowed or origin in self._allowed or origin == self._public:
            return True
        # A proxy in front may have taken off the TLS, so the scheme is not compared.
        is_same = origin.partition("://")[2] == host and origin.startswith(("http://", "https://"))
        return is_same and (self._has_keys or self._is_own(host))

    def _is_own(self, host: str) -> bool:
        """Whether nobody else can own this name: an address, a name without a domain, or one that the settings name."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        public = self._public.partition("://")[2] if self._public else None
        if host == public or name in self._hosts or host in self._hosts or _is_address(name):
            return True
        return "." not in name.rstrip(".") or name.rstrip(".").endswith(OWN_SUFFIXES)


def is_loopback(host: str) -> bool:
    """Whether only programs of the same machine can connect to this address."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _origin_of(url: str) -> str:
    """Scheme and host of a URL, as an ``Origin`` header has them."""
    parts = urlsplit(url.lower())
    return f"{parts.scheme}://{parts.netloc}"
