"""The rules for image URLs that may be fetched, and the test for public addresses.

In: a value that a user gave as a URL. Out: an ``httpx2.URL`` that a ``FetchPolicy`` allows, or a ``FetchError`` that names the broken rule.
Used by the server, which fetches for its clients, and by the client. Knows nothing of connections or images.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import httpx2

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Rule = Literal[
    "off", "invalid", "scheme", "credentials", "domain", "allow_list", "deny_list", "address",
    "redirects", "status", "not_image", "content", "too_large", "time", "connection",
]  # fmt: skip

MAX_URL_CHARS = 16_384
# Networks that are not public although some versions of Python say so: IANA's special-purpose registries, RFC 3879, and the address of
# Azure's host services.
NOT_PUBLIC = tuple(ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16", "fec0::/10", "3fff::/20"))
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Top-level labels without public names: RFC 6761, 6762, 7686, 8375, ICANN's .internal, and common labels of private networks.
_LOCAL_ENDINGS = frozenset(
    {
        *("alt", "arpa", "cluster", "consul", "corp", "domain", "home", "host", "internal", "intranet", "invalid", "lan", "local"),
        *("localdomain", "localhost", "onion", "private", "test"),
    }
)
_TOP_LEVEL = re.compile(r"[a-z]{2,63}|xn--[a-z0-9-]{1,59}")
_AUTHORITY = re.compile(r"[a-z][a-z0-9+.\-]*:(?://)?([^/?#]*)", re.IGNORECASE)


class FetchError(Exception):
    """The reason why a URL could not be fetched.

    Attributes:
        rule: the rule that was broken, for programs.
        reason: a sentence for users.
        status: the HTTP status of the host's error; None without one.
        retry_after: the value of its ``Retry-After`` header; None without one.
    """

    def __init__(self, rule: Rule, reason: str, *, status: int | None = None, retry_after: str | None = None) -> None:
        super().__init__(reason)
        self.rule: Rule = rule
        self.reason = reason
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True)
class FetchPolicy:
    """The limits of fetching by URL.

    Attributes:
        allow_urls: fetching is allowed at all.
        allow_http: plain http is allowed.
        allow_without_domain: a host may be an address or a name without a public domain.
        allow_private: a host may be in a private network.
        allow_credentials: a URL may contain a user name and password.
        allow_list: the only hosts that are allowed; None for all.
        deny_list: hosts that are not allowed.
        check_redirects: these rules hold for redirects too; addresses are checked in any case.
        max_redirects: the largest number of redirects.
        max_bytes: the largest body, decompressed, in bytes.
        timeout_s: time limit for the whole fetch, in seconds; None for no limit.
        connect_timeout_s: time limit for connecting, in seconds; None for ``timeout_s``.
        by_proxy: proxies of the environment are used. The address that a proxy connects to can't be checked.
    """

    allow_urls: bool = True
    allow_http: bool = False
    allow_without_domain: bool = False
    allow_private: bool = False
    allow_credentials: bool = False
    allow_list: frozenset[str] | None = None
    deny_list: frozenset[str] = frozenset()
    check_redirects: bool = True
    max_redirects: int = 3
    max_bytes: int = 20 * 2**20
    timeout_s: float | None = 10.0
    connect_timeout_s: float | None = None
    by_proxy: bool = False

    def checked(self, value: object) -> httpx2.URL:
        """The URL, after all checks that need no name resolution.

        Raises:
            FetchError: the value is no URL, or is not allowed.
        """
        if not self.allow_urls:
            raise FetchError("off", "Images by URL are switched off here.")
        url = parse_url(value)
        if url.scheme != "https" and not (url.scheme == "http" and self.allow_http):
            wanted = "https:// or http://" if self.allow_http else "https://"
            raise FetchError("scheme", f"Expected a URL that begins with {wanted}, got {url.scheme}:.")
        if url.userinfo and not self.allow_credentials:
            raise FetchError("credentials", "It must not hold a user name or password.")
        host = canonical_host(url)
        if not self.allow_without_domain and not has_domain(host):
            raise FetchError("domain", "Expected a host with a public domain, got an address or a local name.")
        if self.allow_list is not None and host not in self.allow_list:
            raise FetchError("allow_list", "Its host is not among those that may be reached.")
        if host in self.deny_list:
            raise FetchError("deny_list", "Its host is among those that may not be reached.")
        return url

    def redirected(self, url: httpx2.URL, location: str) -> httpx2.URL:
        """The target of a redirect.

        Raises:
            FetchError: the target is no URL, or is not allowed.
        """
        try:
            target = url.join(location.strip())
        except (httpx2.InvalidURL, ValueError):
            raise FetchError("content", "The host redirects to what is no URL.") from None
        if self.check_redirects:
            return self.checked(str(target))
        target = parse_url(str(target))
        if target.scheme not in ("http", "https"):
            raise FetchError("scheme", f"The host redirects to a URL that begins with {target.scheme}:.")
        return target


def hosts(names: Iterable[str]) -> frozenset[str]:
    """Host names in canonical form; a text that is no host name is only lower-cased."""
    return frozenset(_canonical(name.strip()) for name in names)


def parse_url(value: object) -> httpx2.URL:
    """A URL with a scheme and, if the scheme needs one, a host. Spaces and non-ASCII characters are escaped.

    Raises:
        FetchError: the value is no such URL.
    """
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_URL_CHARS:
        raise FetchError("invalid", "Expected https://host/path.")
    text = value.strip()
    authority = _AUTHORITY.match(text)
    if any(ord(sign) < 32 or ord(sign) == 127 for sign in text):
        raise FetchError("invalid", "Expected https://host/path, got a line break or another control character in it.")
    if authority and re.search(r"[\s\\]", authority[1]):
        raise FetchError("invalid", "Expected https://host/path, got a space or backslash in the host.")
    try:
        url = httpx2.URL(text)
        # Reading the host decodes it, which fails for an invalid name.
        is_whole = bool(url.scheme) and (url.scheme not in ("http", "https") or bool(url.host))
    except (httpx2.InvalidURL, ValueError, TypeError):
        raise FetchError("invalid", "Expected https://host/path.") from None
    if not is_whole or url.port == 0 or (url.port or 0) > 65535:
        raise FetchError("invalid", "Expected https://host/path.")
    return url


def canonical_host(url: httpx2.URL) -> str:
    """The host of a URL in canonical form: lower case, ASCII, no dot at the end, IPv4 as four decimal numbers."""
    host = url.raw_host.decode("ascii").lower().rstrip(".").strip("[]")
    last = host.rpartition(".")[2]
    if ":" not in host and (last.isdecimal() or last.startswith("0x")):
        try:
            return socket.inet_ntoa(socket.inet_aton(host))  # as resolvers read 127.1 and 0x7f000001
        except OSError:
            return host
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def has_domain(host: str) -> bool:
    """Whether a host is a name with a public domain, and not an address, a single word or a local name."""
    last = host.rpartition(".")[2]
    return "." in host and ":" not in host and bool(_TOP_LEVEL.fullmatch(last)) and last not in _LOCAL_ENDINGS


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet; for an IPv6 address that maps an IPv4 address, whether that one is."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour is not None or address.teredo is not None:  # obsolete tunnels, whose target can't be checked
            return False
    if any(address in network for network in NOT_PUBLIC if network.version == address.version):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _canonical(name: str) -> str:
    bracketed = f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name
    try:
        return canonical_host(httpx2.URL(f"https://{bracketed}/"))
    except (httpx2.InvalidURL, ValueError):
        return name.lower()
