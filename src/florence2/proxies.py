"""The proxy for a URL, from the environment.

In: a URL. Out: the proxy in ``HTTP_PROXY``, ``HTTPS_PROXY`` or ``ALL_PROXY`` (lower-case names come first, as in other programs), or None
if ``NO_PROXY`` names the host. Loopback addresses are never reached through a proxy. Knows nothing of requests.
"""

from __future__ import annotations

import ipaddress
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from florence2.errors import InvalidOption

SCHEMES = ("http", "https", "socks5", "socks5h")
_WITHOUT_SCHEME = "http"
_LOOPBACK = "localhost,127.0.0.1,::1"


@dataclass(frozen=True)
class Proxy:
    """One proxy.

    Attributes:
        url: its address, with user name and password if it needs them.
        source: the environment variable that sets it.
    """

    url: str
    source: str

    def __str__(self) -> str:
        """The proxy for messages, without user name and password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]} ({self.source})"


def proxy_for(url: str) -> Proxy | None:
    """The proxy for a URL; None for a direct connection.

    Raises:
        InvalidOption: the variable of the proxy holds no valid address.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # an invalid URL is reported when the request is sent
        return None
    if is_loopback(host) or _is_excepted(host, port):
        return None
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        # A web server's CGI passes a request's "Proxy:" header as HTTP_PROXY.
        names = (name,) if name == "http_proxy" and "REQUEST_METHOD" in os.environ else (name, name.upper())
        for source in names:
            if value := os.environ.get(source, "").strip():
                return _checked(value, source)
    return _of_system(parts.scheme, host)


def is_loopback(host: str) -> bool:
    """Whether a host is a loopback name or address."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


@contextmanager
def environment_for(url: str) -> Iterator[bool]:
    """Change the environment while the block runs, so that other libraries choose proxies by the rules of this module.

    Yields:
        Whether the environment was changed; a library that has read it before must then read it again.

    Raises:
        InvalidOption: the variable of a proxy holds no valid address.
    """
    is_here = is_loopback(urlsplit(url).hostname or "")
    wanted: dict[str, str] = {}
    for name in (spelling for small in ("http_proxy", "https_proxy", "all_proxy") for spelling in (small, small.upper())):
        if value := os.environ.get(name, "").strip():
            try:
                wanted[name] = _checked(value, name).url
            except InvalidOption:
                if not is_here:
                    raise
                wanted[name] = ""  # not needed, and libraries read all of them
    if wanted and is_here:
        listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        wanted |= dict.fromkeys(("no_proxy", "NO_PROXY"), f"{listed},{_LOOPBACK}".strip(","))
    before = {name: os.environ.get(name) for name, value in wanted.items() if os.environ.get(name) != value}
    os.environ.update({name: wanted[name] for name in before})
    try:
        yield bool(before)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _checked(value: str, source: str) -> Proxy:
    url = value if "://" in value else f"{_WITHOUT_SCHEME}://{value}"
    scheme, _, rest = url.partition("://")
    scheme = "socks5" if scheme.lower() == "socks" else scheme.lower()
    is_address = False
    with suppress(ValueError):
        parts = urlsplit(f"{scheme}://{rest}")
        is_address = scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    if not is_address:
        shown = f"{url.partition('://')[0]}://{rest.rpartition('@')[2]}"
        raise InvalidOption(
            f"{source} is {shown[:80]!r}, expected the address of a proxy such as http://proxy:3128 or socks5://proxy:1080 "
            f"({', '.join(SCHEMES)}). Correct or unset it, or name the host in NO_PROXY.",
            field=source,
        )
    return Proxy(f"{scheme}://{rest.rstrip('/')}", source)


def _is_excepted(host: str, port: int) -> bool:
    """Whether ``NO_PROXY`` has the host: its name, domain, address or network, or ``*``."""
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    return any(_is_meant(entry, host.lower(), port) for entry in listed.replace(",", " ").lower().split())


def _is_meant(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    name, colon, wanted_port = entry.rpartition(":")
    if colon and wanted_port.isdecimal():
        entry = name
        if int(wanted_port) != port:
            return False
    domain = entry.strip("[]").removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _of_system(scheme: str, host: str) -> Proxy | None:
    """The proxy in the system settings of macOS or Windows; None on other systems."""
    if urllib.request.getproxies is urllib.request.getproxies_environment or urllib.request.proxy_bypass(host):
        return None
    value = urllib.request.getproxies().get(scheme)
    return _checked(value, "the system's settings") if value else None
