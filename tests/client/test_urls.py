"""The known client's switches for URLs of images, obeyed; and proxies between client, image hosts and server."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from florence2 import url_policy
from florence2.client import (
    ConnectionFailed,
    HTTPClientError,
    InferenceConfiguration,
    InferenceHTTPClient,
    InvalidInput,
    InvalidParameter,
    InvalidURLImageInput,
    URLAddressNotAllowedError,
)
from tests.client.stub import Reply, Stub, running_stub

Ask = Callable[[Stub, str], Any]
FAST = InferenceConfiguration(retry_wait_s=0.0)


def blocking(stub: Stub, url: str, configuration: InferenceConfiguration = FAST) -> Any:
    with InferenceHTTPClient(stub.url).configure(configuration) as client:
        return client.infer_lmm(url, "m", "<CAPTION>")


def awaited(stub: Stub, url: str) -> Any:
    return asyncio.run(InferenceHTTPClient(stub.url).configure(FAST).infer_lmm_async(url, "m", "<CAPTION>"))


ways = pytest.mark.parametrize("ask", [blocking, awaited])


@pytest.fixture
def image_host(jpeg_bytes: bytes) -> Iterator[Stub]:
    with running_stub() as host:
        host.respond = lambda received: Reply(200, jpeg_bytes)
        yield host


@ways
@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("ALLOW_URL_INPUT", "False", True),
        ("ALLOW_URL_INPUT", "true", False),
        ("ALLOW_NON_HTTPS_URL_INPUT", "FALSE", True),
        ("ALLOW_URL_INPUT_WITHOUT_FQDN", "false", True),
        ("WHITELISTED_DESTINATIONS_FOR_URL_INPUT", "cdn.example,other.example", True),
        ("WHITELISTED_DESTINATIONS_FOR_URL_INPUT", "", True),
        ("WHITELISTED_DESTINATIONS_FOR_URL_INPUT", "cdn.example, 127.0.0.1", False),
        ("BLACKLISTED_DESTINATIONS_FOR_URL_INPUT", "cdn.example,127.0.0.1", True),
        ("BLACKLISTED_DESTINATIONS_FOR_URL_INPUT", "cdn.example", False),
    ],
)
def test_switches(monkeypatch: pytest.MonkeyPatch, ask: Ask, stub: Stub, image_host: Stub, name: str, value: str, refused: bool) -> None:
    monkeypatch.setenv(name, value)
    url = f"{image_host.url}/dog.jpg?token=SECRET"
    if not refused:
        assert ask(stub, url)["response"]
        return
    with pytest.raises(InvalidURLImageInput, match=name) as caught:
        ask(stub, url)
    assert isinstance(caught.value, HTTPClientError)
    assert "SECRET" not in str(caught.value)
    assert stub.received == image_host.received == []


@ways
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0", "[::ffff:127.0.0.1]"])
def test_addresses_that_are_not_public(monkeypatch: pytest.MonkeyPatch, ask: Ask, stub: Stub, image_host: Stub, host: str) -> None:
    monkeypatch.setenv("ALLOW_URL_TO_NON_GLOBAL_ADDRESSES", "False")
    with pytest.raises(URLAddressNotAllowedError, match="ALLOW_URL_TO_NON_GLOBAL_ADDRESSES"):
        ask(stub, image_host.url.replace("127.0.0.1", host) + "/dog.jpg")
    assert stub.received == image_host.received == []


def test_switches_hold_for_urls_left_to_the_server(monkeypatch: pytest.MonkeyPatch, stub: Stub) -> None:
    monkeypatch.setenv("ALLOW_URL_INPUT", "False")
    with pytest.raises(InvalidURLImageInput):
        blocking(stub, "https://a.example/x.jpg", InferenceConfiguration(send_urls=True))
    assert stub.received == []


@ways
def test_redirects_are_checked_where_it_is_said(monkeypatch: pytest.MonkeyPatch, ask: Ask, stub: Stub, image_host: Stub) -> None:
    monkeypatch.setenv("BLACKLISTED_DESTINATIONS_FOR_URL_INPUT", "localhost")
    there = image_host.url.replace("127.0.0.1", "localhost") + "/there.jpg"
    image_host.replies = [Reply(302, b"", {"location": there})]
    assert ask(stub, image_host.url + "/here.jpg")["response"]
    monkeypatch.setenv("VALIDATE_IMAGE_URL_REDIRECTS", "True")
    image_host.replies = [Reply(302, b"", {"location": there})]
    with pytest.raises(InvalidURLImageInput, match="BLACKLISTED"):
        ask(stub, image_host.url + "/here.jpg")
    monkeypatch.delenv("VALIDATE_IMAGE_URL_REDIRECTS")
    image_host.replies = [Reply(302, b"", {"location": "file:///etc/passwd"})]
    with pytest.raises(InvalidURLImageInput, match="file:"):
        ask(stub, image_host.url + "/here.jpg")


@ways
def test_redirects_to_private_addresses(monkeypatch: pytest.MonkeyPatch, ask: Ask, stub: Stub, image_host: Stub) -> None:
    monkeypatch.setenv("ALLOW_URL_TO_NON_GLOBAL_ADDRESSES", "False")
    monkeypatch.setattr(url_policy, "is_public", lambda address: str(address) == "127.0.0.1")
    image_host.replies = [Reply(302, b"", {"location": image_host.url.replace("127.0.0.1", "127.0.0.2") + "/inside"})]
    with pytest.raises(URLAddressNotAllowedError):
        ask(stub, image_host.url + "/here.jpg")
    assert [one.path for one in image_host.received] == ["/here.jpg"]


@ways
def test_number_of_redirects(monkeypatch: pytest.MonkeyPatch, ask: Ask, stub: Stub, image_host: Stub) -> None:
    image_host.replies = [Reply(302, b"", {"location": "/again"})] * 30
    assert ask(stub, image_host.url)["response"]
    image_host.replies = [Reply(302, b"", {"location": "/again"})] * 31
    with pytest.raises(InvalidInput, match="more than 30 redirects"):
        ask(stub, image_host.url)
    monkeypatch.setenv("MAX_IMAGE_URL_REDIRECTS", "1")
    image_host.replies = [Reply(302, b"", {"location": "/again"})] * 2
    with pytest.raises(InvalidInput, match="more than 1 redirects"):
        ask(stub, image_host.url)


@pytest.mark.parametrize(("name", "value"), [("ALLOW_URL_INPUT", "yes"), ("MAX_IMAGE_URL_REDIRECTS", "-1"), ("ALLOW_URL_INPUT", "")])
def test_switches_that_are_none_are_named(monkeypatch: pytest.MonkeyPatch, stub: Stub, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidParameter, match=name):
        blocking(stub, "https://a.example/x.jpg")


@ways
def test_bodies_are_bounded(monkeypatch: pytest.MonkeyPatch, ask: Ask, stub: Stub, image_host: Stub) -> None:
    monkeypatch.setattr("florence2.client.urls.MAX_FETCHED_BYTES", 100)
    with pytest.raises(InvalidInput, match="more than 100 bytes"):
        ask(stub, image_host.url)


# Proxies


@contextmanager
def socks_proxy() -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """A SOCKS5 proxy, as little of it as is needed: each name leads to this machine. Tells what it was asked for."""
    asked: list[tuple[str, int]] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(near: socket.socket) -> None:
        with near:
            near.recv(1024)
            near.sendall(b"\x05\x00")
            request = near.recv(1024)
            name, port = request[5 : 5 + request[4]].decode(), int.from_bytes(request[-2:], "big")
            asked.append((name, port))
            near.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
            with socket.create_connection(("127.0.0.1", port)) as far:
                back = threading.Thread(target=pump, args=(far, near), daemon=True)
                back.start()
                pump(near, far)
                back.join(5)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(near,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"socks5h://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        listener.close()


@ways
def test_socks_proxies_for_server_and_images(monkeypatch: pytest.MonkeyPatch, ask: Ask, stub: Stub, image_host: Stub) -> None:
    port, image_port = (int(url.rpartition(":")[2]) for url in (stub.url, image_host.url))
    with socks_proxy() as (proxy, asked):
        monkeypatch.setenv("ALL_PROXY", proxy)
        monkeypatch.setattr(stub, "url", f"http://server.example:{port}")
        assert ask(stub, f"http://images.example:{image_port}/dog.jpg")["response"]
        assert asked == [("images.example", image_port), ("server.example", port)]
        # This machine is reached without, though NO_PROXY does not name it.
        monkeypatch.setattr(stub, "url", f"http://127.0.0.1:{port}")
        assert ask(stub, image_host.url)["response"]
        assert len(asked) == 2


@ways
def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, ask: Ask, stub: Stub, jpeg_bytes: bytes) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    with pytest.raises(InvalidInput, match=r"by the proxy http://127\.0\.0\.1:9 \(HTTP_PROXY\)") as caught:
        ask(stub, "http://images.example/dog.jpg")
    assert "secret" not in str(caught.value)
    client = InferenceHTTPClient("http://server.example").configure(FAST)
    with pytest.raises(ConnectionFailed, match=r"by the proxy http://127\.0\.0\.1:9 \(HTTP_PROXY\).*NO_PROXY"):
        client.infer_lmm(jpeg_bytes, "m", "<CAPTION>")
    with pytest.raises(ConnectionFailed, match=r"by the proxy http://127\.0\.0\.1:9 \(HTTP_PROXY\)"):
        asyncio.run(client.infer_lmm_async(jpeg_bytes, "m", "<CAPTION>"))


def test_what_is_no_proxy_is_told(monkeypatch: pytest.MonkeyPatch, stub: Stub, jpeg_bytes: bytes) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks4://127.0.0.1:9")
    client = InferenceHTTPClient("http://server.example").configure(FAST)
    with pytest.raises(InvalidParameter, match="ALL_PROXY is"):
        client.get_server_info()
    with pytest.raises(InvalidInput, match="ALL_PROXY is"):
        blocking(stub, "http://images.example/dog.jpg")
    assert InferenceHTTPClient(stub.url).get_server_info().version


def test_what_a_proxy_hides_is_told(monkeypatch: pytest.MonkeyPatch, stub: Stub, image_host: Stub) -> None:
    monkeypatch.setenv("ALLOW_URL_TO_NON_GLOBAL_ADDRESSES", "False")
    with socks_proxy() as (proxy, asked):
        monkeypatch.setenv("ALL_PROXY", proxy)
        with pytest.raises(URLAddressNotAllowedError):
            blocking(stub, "http://10.0.0.1/dog.jpg")
        assert asked == []
        with pytest.warns(UserWarning, match="can't be checked"):
            blocking(stub, f"http://images.example:{image_host.url.rpartition(':')[2]}/dog.jpg")
