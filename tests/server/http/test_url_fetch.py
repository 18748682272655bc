"""Fetching by URL: what is fetched, what never is, and when it is given up."""

from __future__ import annotations

import base64
import ipaddress
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from florence2 import url_policy
from florence2.errors import InvalidImage
from florence2.server.errors import ImageTooLarge
from florence2.server.http.url_fetch import make_fetcher
from florence2.server.roboflow import image_field
from florence2.server.roboflow.refusals import CAUSE
from florence2.server.roboflow.schemas import ImageField
from florence2.server.settings import Settings
from florence2.url_policy import is_public
from tests.server.fakes import body, client_of, image_bytes

pytestmark = pytest.mark.anyio

LOCAL: dict[str, Any] = {"allow_http_urls": True, "allow_urls_without_domain": True, "allow_private_urls": True}
PUBLIC_PART = "127.0.0.1"  # what plays the public internet where a test needs both


def zipped(data: bytes, bits: int = 31) -> bytes:
    compressor = zlib.compressobj(wbits=bits)
    return compressor.compress(data) + compressor.flush()


# Status, body and headers, by path.
BODIES: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "/gzip": (200, zipped(image_bytes()), {"Content_Encoding": "gzip"}),
    "/x-gzip": (200, zipped(image_bytes()), {"Content_Encoding": " X-GZIP "}),
    "/deflate": (200, zipped(image_bytes(), 15), {"Content_Encoding": "deflate"}),
    "/raw-deflate": (200, zipped(image_bytes(), -15), {"Content_Encoding": "deflate"}),
    "/said-gzip": (200, image_bytes(), {"Content_Encoding": "gzip"}),
    "/utf-8": (200, image_bytes(), {"Content_Encoding": "utf-8"}),
    "/identity": (200, image_bytes(), {"Content_Encoding": "identity"}),
    "/203": (203, image_bytes(), {}),
    "/201": (201, image_bytes(), {}),
    "/206": (206, image_bytes(), {}),
    "/206-whole": (206, image_bytes(), {"Content_Range": f"bytes 0-{len(image_bytes()) - 1}/{len(image_bytes())}"}),
    "/said-html": (200, image_bytes(), {"Content_Type": "text/html"}),
    "/206-part": (206, image_bytes()[:50], {"Content_Range": "bytes 0-49/999"}),
    "/206-end": (206, image_bytes()[50:], {"Content_Range": "bytes 50-99/100"}),
    "/206-parts": (206, b"--x", {"Content_Type": "multipart/byteranges; boundary=x"}),
    "/br": (200, b"\x0b\x02", {"Content_Encoding": "br"}),
    "/zstd": (200, b"\x28\xb5\x2f\xfd", {"Content_Encoding": "zstd"}),
    "/twice": (200, zipped(zipped(image_bytes())), {"Content_Encoding": "gzip, gzip"}),
    "/gzip-damaged": (200, zipped(image_bytes())[:10] + b"\xff" * 40, {"Content_Encoding": "gzip"}),
    "/gzip-short": (200, zipped(image_bytes())[:-20], {"Content_Encoding": "gzip"}),
    "/bomb": (200, zipped(bytes(40 * 2**20)), {"Content_Encoding": "gzip"}),
    "/cookie": (200, image_bytes(), {"Set_Cookie": "track=1; Path=/"}),
    "/204": (204, b"", {}),
    "/304": (304, b"", {}),
    "/300": (300, b"", {}),
    "/json": (200, b' {"error": 1}', {"Content_Type": "application/json"}),
    "/short": (200, b"12345", {"Content_Length": "999", "Connection": "close"}),
    "/nowhere": (302, b"", {}),
    "/no-url": (302, b"", {"Location": "http://a:port/"}),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.headers["Host"], self.path))  # type: ignore[attr-defined]
        self.server.cookies.append(self.headers["Cookie"])  # type: ignore[attr-defined]
        if self.path.startswith("/to/"):
            self.answer(302, b"", Location=self.path.removeprefix("/to/"))
        elif self.path == "/loop":
            self.answer(302, b"", Location="/loop")
        elif self.path == "/image.png":
            self.answer(200, image_bytes())
        elif self.path == "/html":
            self.answer(200, b"<html>", **{"Content-Type": "text/html; charset=utf-8"})
        elif self.path == "/a%20b/%C3%A4.png?c=d%20e":
            self.answer(200, image_bytes())
        elif self.path in BODIES:
            status, content, headers = BODIES[self.path]
            self.answer(status, content, **{name.replace("_", "-"): value for name, value in headers.items()})
        elif self.path == "/moved":
            self.answer(302, b"", Location="/a b/\xc3\xa4.png?c=d e")
        elif self.path == "/empty":
            self.answer(200, b"")
        elif self.path == "/announced":
            self.answer(200, b"", **{"Content-Length": "99999999"})
        elif self.path in ("/endless", "/slow"):
            self.endless(0.0 if self.path == "/endless" else 0.05)
        else:
            self.answer(404, b"no")

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def endless(self, pause_s: float) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 1000)
                time.sleep(pause_s)
        except OSError:
            pass

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def host() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    server.daemon_threads = True
    server.seen, server.cookies = [], []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Host names and the addresses that they have, one more each time they are looked up."""
    table: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def look_up(host: str | bytes, port: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in table:
            return real(host, port, *arguments, **options)
        address = table[name].pop(0)
        return [(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return table


@pytest.fixture
def part_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url_policy, "is_public", lambda address: str(address) == PUBLIC_PART)


async def fetch(url: object, **settings: Any) -> bytes:
    fetcher = make_fetcher(Settings(**settings))
    try:
        found = await image_field.fetch(ImageField(type="url", value=url), fetcher)
        assert isinstance(found, bytes)
        return found
    finally:
        await fetcher.close()


async def refused(url: object, **settings: Any) -> str:
    with pytest.raises(InvalidImage) as caught:
        await fetch(url, **settings)
    assert caught.value.field == "image"
    assert caught.value.message.startswith(CAUSE)
    return caught.value.message.removeprefix(CAUSE)


def address(host: ThreadingHTTPServer, path: str = "/image.png", name: str = "127.0.0.1") -> str:
    return f"http://{name}:{host.server_port}{path}"


async def test_fetches(host: ThreadingHTTPServer) -> None:
    assert await fetch(address(host), **LOCAL) == image_bytes()
    assert await fetch(address(host, "/to//image.png"), **LOCAL) == image_bytes()


async def test_no_cookie_is_kept(host: ThreadingHTTPServer) -> None:
    fetcher = make_fetcher(Settings(**LOCAL))
    for path in ("/cookie", "/image.png", "/to//image.png"):
        assert await fetcher.fetch(address(host, path)) == image_bytes()
    await fetcher.close()
    assert host.cookies == [None] * 4  # type: ignore[attr-defined]


async def test_whole_way(host: ThreadingHTTPServer) -> None:
    async with client_of(**LOCAL) as client:
        good = await client.post("/infer/lmm", json=body(image={"type": "URL", "value": address(host)}))
        bad = await client.post("/infer/lmm", json=body(image={"type": "url", "value": address(host, "/404")}))
        none = await client.post("/infer/lmm", json=body(image={"type": "url"}))
    assert good.status_code == 200
    assert bad.status_code == none.status_code == 400
    assert bad.json()["message"].startswith("Could not load input image. Cause: Data pointed by URL could not be decoded into image.")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/404", "Data pointed by URL could not be decoded into image. The host answered with status 404"),
        ("/html", "Data is not image."),
        ("/empty", "Data pointed by URL could not be decoded into image. The URL holds nothing"),
        ("/loop", "There are more than 3 redirects"),
        ("/to/file:///etc/passwd", "non https:// URL"),
        ("/to/ftp://a.example/", "non https:// URL"),
    ],
)
async def test_what_is_no_image(host: ThreadingHTTPServer, path: str, words: str) -> None:
    assert words in await refused(address(host, path), **LOCAL)


@pytest.mark.parametrize(
    "path",
    [
        "/gzip",
        "/x-gzip",
        "/deflate",
        "/raw-deflate",
        "/said-gzip",
        "/utf-8",
        "/identity",
        "/203",
        "/201",
        "/206",
        "/206-whole",
        "/said-html",
    ],
)
async def test_hosts_that_say_odd_things_of_whole_images(host: ThreadingHTTPServer, path: str) -> None:
    assert await fetch(address(host, path), **LOCAL) == image_bytes()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/206-part", "sent a part of it only (status 206)"),
        ("/206-end", "sent a part of it only (status 206)"),
        ("/206-parts", "sent a part of it only (status 206)"),
        ("/br", "sent it compressed (br), though that was not asked for"),
        ("/zstd", "sent it compressed (zstd), though that was not asked for"),
        ("/twice", "sent it compressed (gzip, gzip)"),
        ("/gzip-damaged", "sent it compressed (gzip), and damaged"),
        ("/gzip-short", "broke off within the compressed body (gzip)"),
        ("/204", "The URL holds nothing"),
        ("/304", "status 304"),
        ("/300", "status 300"),
        ("/nowhere", "status 302"),
        ("/no-url", "redirects to what is no URL"),
        ("/json", "Data is not image. The URL holds application/json"),
        ("/short", "The host broke off after 5 of 999 bytes"),
    ],
)
async def test_the_true_reason(host: ThreadingHTTPServer, path: str, reason: str) -> None:
    assert reason in await refused(address(host, path), **LOCAL)


async def test_compressed_bodies_grow_to_the_limit_only(host: ThreadingHTTPServer) -> None:
    tracemalloc.start()
    with pytest.raises(ImageTooLarge, match="more than 1000000 bytes"):
        await fetch(address(host, "/bomb"), max_body_bytes=1_000_000, **LOCAL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_000_000


@pytest.mark.parametrize("path", ["/a b/ä.png?c=d e", "/a%20b/%C3%A4.png?c=d e", "/moved", "/a b/ä.png?c=d%20e#there"])
async def test_spaces_and_other_letters_in_urls(host: ThreadingHTTPServer, path: str) -> None:
    assert await fetch(f"  {address(host, path)}\n", **LOCAL) == image_bytes()


@pytest.mark.parametrize(
    "url", ["https://a .example/", "https://a.example\\@b.example/", "https://a.example/\n", "https://a\t.example/x\x00y"]
)
async def test_hosts_with_spaces_and_backslashes(url: str) -> None:
    assert (await refused(url + "x")).startswith("Provided image URL is invalid")


async def test_images_within_the_url() -> None:
    text = base64.b64encode(image_bytes()).decode()
    quoted = text.replace("+", "%2B").replace("=", "%3D")
    async with client_of(allow_urls=False) as client:
        for value in (f"data:image/png;base64,{text}", f" data:;base64,{quoted}", f"DATA:image/png;charset=x;base64,{text}"):
            answer = await client.post("/infer/lmm", json=body(image={"type": "url", "value": value}))
            assert answer.status_code == 200
        bad = await client.post("/infer/lmm", json=body(image={"type": "url", "value": "data:image/png;base64,!!!"}))
    assert bad.status_code == 400
    assert "base64" in bad.json()["message"]


@pytest.mark.parametrize("url", [None, 7, "", "  ", "no url", "https://", "http:\\\\a.example", "https://[::1/", "x" * 9000])
async def test_what_is_no_url(url: object) -> None:
    assert (await refused(url, **LOCAL)).startswith("Provided image URL is invalid")


@pytest.mark.parametrize("url", ["http://a.example/x", "ftp://a.example/x", "file:///etc/passwd"])
async def test_only_https_unless_allowed(url: str) -> None:
    assert await refused(url) == "Providing images via non https:// URL is not supported in this configuration of `inference`."


@pytest.mark.parametrize(
    "host_name",
    [
        *("127.0.0.1", "[::1]", "2130706433", "0x7f.1", "localhost", "localhost.", "127.1", "1.2.3.4."),
        *("printer.local", "db.corp.internal", "a.svc.cluster.local", "x.lan."),
    ],
)
async def test_only_domains_unless_allowed(host_name: str) -> None:
    words = "Providing images via URL without FQDN is not supported in this configuration of `inference`."
    assert await refused(f"https://{host_name}/x") == words


async def test_switched_off() -> None:
    words = "Providing images via URL is not supported in this configuration of `inference`."
    assert await refused("https://a.example/", allow_urls=False) == words


async def test_names_and_passwords_in_urls() -> None:
    assert "user name or password" in await refused("https://user:pass@a.example/")


async def test_lists() -> None:
    assert "blacklisted" in await refused("https://A.example./x", url_deny_list="a.example,b.example")
    assert "whitelisted" in await refused("https://c.example/x", url_allow_list="a.example")


async def test_lists_know_a_host_however_it_is_written(host: ThreadingHTTPServer) -> None:
    for name in ("127.0.0.1", "127.1", "2130706433", "0x7f000001"):
        assert "blacklisted" in await refused(address(host, name=name), url_deny_list="127.0.0.1", **LOCAL)
    for written in ("BÜCHER.example", "xn--bcher-kva.example", " bücher.example. "):
        assert "blacklisted" in await refused("https://bücher.example/x", url_deny_list=written)
    assert "blacklisted" in await refused("http://[0:0::1]/x", url_deny_list="::1", **LOCAL)


async def test_lists_hold_for_redirects(host: ThreadingHTTPServer, names: dict[str, list[str]]) -> None:
    names["a.example"] = ["127.0.0.1"]
    target = address(host, name="b.example")
    words = await refused(address(host, f"/to/{target}", "a.example"), url_allow_list="a.example", **LOCAL)
    assert "whitelisted" in words
    assert len(host.seen) == 1  # type: ignore[attr-defined]


async def test_private_addresses_are_not_reached(host: ThreadingHTTPServer, names: dict[str, list[str]]) -> None:
    names["inside.example"] = ["127.0.0.1"]
    words = await refused(address(host, name="inside.example"), allow_http_urls=True)
    assert words == "URL points to a network destination that is not allowed."
    assert not host.seen  # type: ignore[attr-defined]


@pytest.mark.usefixtures("part_is_public")
async def test_each_redirect_is_checked(host: ThreadingHTTPServer, names: dict[str, list[str]]) -> None:
    names.update({"outside.example": ["127.0.0.1"], "inside.example": ["127.0.0.2"]})
    target = address(host, name="inside.example")
    words = await refused(address(host, f"/to/{target}", "outside.example"), allow_http_urls=True)
    assert words == "URL points to a network destination that is not allowed."
    assert len(host.seen) == 1  # type: ignore[attr-defined]


@pytest.mark.usefixtures("part_is_public")
async def test_a_name_is_looked_up_once(host: ThreadingHTTPServer, names: dict[str, list[str]]) -> None:
    names["turning.example"] = ["127.0.0.1"]  # a second look-up would find nothing
    assert await fetch(address(host, name="turning.example"), allow_http_urls=True) == image_bytes()
    assert host.seen[0][0] == f"turning.example:{host.server_port}"  # type: ignore[attr-defined]


async def test_unknown_host(names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise socket.gaierror("unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert "could not be reached" in await refused("https://unknown.example/")


async def test_refused_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert "could not be reached" in await refused(f"http://127.0.0.1:{taken.getsockname()[1]}/", **LOCAL)


async def test_slow_host(host: ThreadingHTTPServer) -> None:
    began = time.monotonic()
    assert "took longer than 0.3 s" in await refused(address(host, "/slow"), url_timeout_s=0.3, **LOCAL)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("path", ["/endless", "/announced"])
async def test_large_answers(host: ThreadingHTTPServer, path: str) -> None:
    with pytest.raises(ImageTooLarge, match="more than 10000 bytes"):
        await fetch(address(host, path), max_body_bytes=10_000, **LOCAL)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("192.0.2.1", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::1", False),
        ("2002:7f00:1::", False),
        ("2002:808:808::", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
        ("::7f00:1", False),
    ],
)
async def test_public_addresses(text: str, expected: bool) -> None:
    assert is_public(ipaddress.ip_address(text)) is expected
