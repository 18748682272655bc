"""Images by URL: addresses that no server may fetch from, and hosts that answer with what no client should read.

``{host}`` stands for a host on this machine whose address plays the public internet; ``127.0.0.2`` and all others are what they are.
What the host answers by path is in ``ANSWERS``; names are resolved by ``PRELUDE``, which runs in the server's process.
"""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.server.fakes import image_bytes
from tests.server.hostile.cases import Case
from tests.server.hostile.files import MB, zeros

BAD, LARGE = "invalid_image", "image_too_large"
FORBIDDEN = "network destination that is not allowed"
SCHEME = "non https:// URL"
TIMEOUT_S = 1.5

PRELUDE = """
import itertools, socket, sys
sys.modules["uvloop"] = None  # it resolves names by itself
from florence2 import url_policy
ADDRESSES = {"outside.example": ["127.0.0.1"], "inside.example": ["127.0.0.2"], "metadata.example": ["169.254.169.254"],
             "turning.example": ["127.0.0.1", "127.0.0.2"]}
turns, resolve, is_public = itertools.count(), socket.getaddrinfo, url_policy.is_public
def getaddrinfo(host, *more, **named):
    name = host.decode() if isinstance(host, bytes) else host
    name = name.rstrip(".").lower()
    if name in ADDRESSES:
        name = ADDRESSES[name][next(turns) if name == "turning.example" else 0]
    return resolve(name, *more, **named)
socket.getaddrinfo = getaddrinfo
url_policy.is_public = lambda address: str(address) == "127.0.0.1" or is_public(address)
"""
SETTINGS = {"allow_http_urls": True, "allow_urls_without_domain": True, "url_timeout_s": TIMEOUT_S}

PRIVATE = [
    Case(name, f"http://{host}/x", 400, BAD, FORBIDDEN)
    for name, host in {
        "this machine": "127.0.0.2",
        "this machine as one number": "2130706434",
        "this machine in hexadecimal": "0x7f000002",
        "this machine in hexadecimal parts": "0x7f.0x0.0x0.0x2",
        "this machine in short": "127.2",
        "this machine with full-width dots": "127\u30020\u30020\u30022",
        "this machine, IPv6": "[::1]",
        "this machine, IPv6 in full": "[0:0:0:0:0:0:0:1]",
        "this machine, mapped into IPv6": "[::ffff:127.0.0.2]",
        "this machine, mapped in hexadecimal": "[::ffff:7f00:2]",
        "this machine, compatible IPv6": "[::127.0.0.2]",
        "this machine behind NAT64": "[64:ff9b::127.0.0.2]",
        "this machine by 6to4": "[2002:7f00:2::]",
        "this machine by Teredo": "[2001:0:7f00:2::]",
        "no address": "0.0.0.0",
        "no address as one digit": "0",
        "no address, IPv6": "[::]",
        "private, class A": "10.0.0.1",
        "private, class B": "172.31.255.255",
        "private, class C": "192.168.0.1",
        "private, IPv6": "[fc00::1]",
        "site-local, IPv6": "[fec0::1]",
        "shared by providers": "100.64.0.1",
        "link-local": "169.254.1.1",
        "link-local, IPv6": "[fe80::1]",
        "the metadata of a cloud": "169.254.169.254",
        "the metadata of a cloud as one number": "2852039166",
        "the metadata of a cloud in hexadecimal": "0xa9fea9fe",
        "the metadata of a cloud in mixed notation": "169.0376.0xa9.254",
        "the metadata of a cloud, mapped into IPv6": "[::ffff:169.254.169.254]",
        "the metadata of a cloud behind NAT64": "[64:ff9b::a9fe:a9fe]",
        "the metadata of a cloud, IPv6": "[fd00:ec2::254]",
        "the metadata of Alibaba's cloud": "100.100.100.200",
        "the host services of Azure": "168.63.129.16",
        "everybody": "255.255.255.255",
        "a group": "224.0.0.1",
        "a group, IPv6": "[ff02::1]",
        "documentation": "192.0.2.1",
        "a name that leads to this machine": "inside.example",
        "a name that leads to the metadata of a cloud": "metadata.example",
        "a name in capitals with a dot at its end": "INSIDE.example.",
        "another port": "127.0.0.2:22",
    }.items()
]
UNREAD = [
    Case(name, f"http://{host}/x", 400, BAD)
    for name, host in {
        "this machine in octal": "0177.0.0.2",
        "this machine in octal with zeros": "0000177.0.0.02",
        "this machine with a dot at its end": "127.0.0.2.",
        "this machine in full-width digits": "\uff11\uff12\uff17.\uff10.\uff10.\uff12",
        "this machine in circled digits": "\u2460\u2461\u2466.\u24ea.\u24ea.\u2461",
        "this machine with escaped digits": "%31%32%37.0.0.2",
        "link-local with a zone": "[fe80::1%25eth0]",
        "the metadata of a cloud in octal": "0251.0376.0251.0376",
        "a name with full-width letters": "\uff49nside.example",
    }.items()
]
DISGUISED = [
    Case("a host as user name", "http://outside.example@127.0.0.2/", 400, BAD, "user name or password"),
    Case("a host as user name and password", "http://outside.example:80@127.0.0.2/", 400, BAD, "user name or password"),
    Case("a host behind a #", "http://127.0.0.2#@outside.example/", 400, BAD, FORBIDDEN),
    Case("a host behind a ?", "http://127.0.0.2?@outside.example/", 400, BAD, FORBIDDEN),
    Case("a host behind a backslash", "http://127.0.0.2\\@outside.example/", 400, BAD, "invalid"),
    Case("a host behind a blank", "http://127.0.0.2 .outside.example/", 400, BAD, "invalid"),
    Case("a host behind a null byte", "http://127.0.0.2\0.outside.example/", 400, BAD, "invalid"),
    Case("a host behind a line's end", "http://127.0.0.2\r\n.outside.example/", 400, BAD, "invalid"),
    Case("no slashes", "http:127.0.0.2/x", 400, BAD),
    Case("three slashes", "http:///127.0.0.2/x", 400, BAD, "invalid"),
    Case("a blank in front", " http://127.0.0.2/x", 400, BAD, FORBIDDEN),
    Case("a port that is none", "http://127.0.0.1:99999/x", 400, BAD, "invalid"),
    Case("a URL of 20,000 characters", "http://127.0.0.1/" + "x" * 20_000, 400, BAD, "invalid"),
    Case("an address of five parts", "http://1.2.3.4.5/", 400, BAD),
    Case("a zone in a name", "http://127.0.0.2%25eth0/", 400, BAD),
]
SCHEMES = [
    Case(f"{scheme}", f"{scheme}{rest}", 400, BAD)
    for scheme, rest in {
        "file:": "///etc/passwd",
        "FILE:": "//localhost/etc/passwd",
        "ftp:": "//127.0.0.1/x.png",
        "gopher:": "//127.0.0.1:6379/_INFO",
        "dict:": "//127.0.0.1:11211/stats",
        "ldap:": "//127.0.0.1/x",
        "jar:": "http://127.0.0.1/x!/y",
        "javascript:": "alert(1)",
        "unix:": "//var/run/docker.sock",
        "http+unix:": "//%2Fvar%2Frun%2Fdocker.sock/info",
        "data:text/plain,": "hello",
        "data:text/html;base64,": "PGh0bWw+",
        "//": "127.0.0.2/x",
        "/": "etc/passwd",
    }.items()
]
REDIRECTS = [
    Case(f"a redirect to {name}", f"{{host}}/to/{target}", 400, BAD, says)
    for name, target, says in [
        ("this machine", "http://127.0.0.2/", FORBIDDEN),
        ("this machine as one number", "http://2130706434/", FORBIDDEN),
        ("the metadata of a cloud", "http://169.254.169.254/latest/meta-data/", FORBIDDEN),
        ("the metadata of a cloud without a scheme", "//169.254.169.254/", FORBIDDEN),
        ("a name that leads to this machine", "http://inside.example/", FORBIDDEN),
        ("this machine, IPv6", "http://[::ffff:127.0.0.2]/", FORBIDDEN),
        ("a file", "file:///etc/passwd", SCHEME),
        ("ftp", "ftp://127.0.0.1/", SCHEME),
        ("gopher", "gopher://127.0.0.1:6379/_INFO", SCHEME),
        ("a data URI", "data:text/plain,hello", SCHEME),
        ("a user name", "http://a:b@127.0.0.1/", "user name or password"),
        ("itself, for ever", "/self", "redirects"),
        ("64 others", "/chain/64", "redirects"),
        ("what is no URL", "http://[::1/", ""),
    ]
]
HOSTS = [
    Case("a name that leads elsewhere at each look-up", "http://turning.example:{port}/image", 200),
    Case("a picture", "{host}/image", 200),
    Case("a name of this machine's network", "http://metadata.google.internal/x", 400, BAD),
    Case("a body without end", "{host}/endless", 413, LARGE, "more than 20971520 bytes"),
    Case("chunks without end", "{host}/chunks", 413, LARGE, "more than 20971520 bytes"),
    Case("a body of 10 GB is announced", "{host}/announced", 413, LARGE, "more than 20971520 bytes"),
    Case("a body that grows to 300 MB", "{host}/gzip", 413, LARGE, "more than 20971520 bytes"),
    Case("a body compressed in a way that is not read", "{host}/brotli", 400, BAD),
    Case("fewer bytes than announced", "{host}/short", 400, BAD),
    Case("two lengths", "{host}/lengths", 400, BAD),
    Case("an answer that does not come", "{host}/silent", 400, BAD, f"took longer than {TIMEOUT_S} s", TIMEOUT_S + 1),
    Case("a byte every 0.1 s", "{host}/slow", 400, BAD, f"took longer than {TIMEOUT_S} s", TIMEOUT_S + 1),
    Case("a header every 0.1 s", "{host}/headers", 400, BAD, f"took longer than {TIMEOUT_S} s", TIMEOUT_S + 1),
    Case("a head of 10 MB", "{host}/head", 400, BAD),
    Case("interim answers without end", "{host}/interim", 400, BAD, "no response within its first 256 KiB"),
    Case("no HTTP", "{host}/noise", 400, BAD),
    Case("an answer of HTTP/0.9", "{host}/old", 400, BAD),
    Case("no TLS", "https://127.0.0.1:{port}/image", 400, BAD, "could not be reached"),
    Case("a page", "{host}/page", 400, BAD),
    Case("a text that is called a picture", "{host}/text", 400, BAD),
    Case("an error", "{host}/500", 400, BAD, "500"),
    Case("nothing", "{host}/nothing", 400, BAD),
]
TABLE = [*PRIVATE, *UNREAD, *DISGUISED, *SCHEMES, *REDIRECTS, *HOSTS]

Send = Callable[[bytes], None]


def _answer(content: bytes, *lines: str, status: str = "200 OK", length: int | None = None) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(content) if length is None else length}", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + content


def _slowly(parts: list[bytes]) -> Iterator[bytes]:
    for part in parts:
        yield part
        time.sleep(0.1)


ANSWERS: dict[str, bytes | Callable[[], Iterator[bytes]]] = {
    "/image": _answer(image_bytes(), "Content-Type: image/png"),
    "/self": _answer(b"", "Location: /self", status="302 Found"),
    "/endless": lambda: iter([b"HTTP/1.1 200 OK\r\n\r\n", *[bytes(MB)] * 400]),
    "/chunks": lambda: iter([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"fffff\r\n" + bytes(0xFFFFF) + b"\r\n"] * 400]),
    "/announced": _answer(b"x", length=10**10),
    "/gzip": _answer(zeros(300 * MB), "Content-Encoding: deflate"),
    "/brotli": _answer(b"\x0b\x02", "Content-Encoding: br"),
    "/short": _answer(image_bytes()[:50], length=5000),
    "/lengths": _answer(image_bytes(), "Content-Length: 5"),
    "/silent": lambda: _slowly([b""] * 40),
    "/slow": lambda: _slowly([b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *[b"x"] * 40]),
    "/headers": lambda: _slowly([b"HTTP/1.1 200 OK\r\n", *[b"a: b\r\n"] * 40]),
    "/head": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (2 * MB) + b"\r\n",
    "/interim": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100_000,
    "/noise": bytes(range(256)) * 40,
    "/old": image_bytes(),
    "/page": _answer(b"<html></html>", "Content-Type: text/html"),
    "/text": _answer(b"just a text", "Content-Type: image/png"),
    "/500": _answer(b"", status="500 Broken"),
    "/nothing": _answer(b""),
}


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with suppress(OSError, IndexError, ValueError):
            path = self.rfile.readline().split()[1].decode()
            while self.rfile.readline().strip():
                pass
            for part in _parts(path):
                self.wfile.write(part)


def _parts(path: str) -> Iterator[bytes]:
    if path.startswith("/to/"):
        return iter([_answer(b"", f"Location: {path.removeprefix('/to/')}", status="302 Found")])
    if path.startswith("/chain/"):
        return iter([_answer(b"", f"Location: /chain/{int(path.removeprefix('/chain/')) - 1}", status="302 Found")])
    answer = ANSWERS[path]
    return iter([answer]) if isinstance(answer, bytes) else answer()


@contextmanager
def host() -> Iterator[int]:
    """The port of the host while it answers."""
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
