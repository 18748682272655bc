"""Who has no key, sends half of something, or does not read: none of them keeps a customer from an answer. Real processes and sockets."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.server.fakes import body
from tests.server.process import Server, start_server

KEYS = ("first-customer", "second-customer")
PATIENCE_S = 2.0
LATEST_S = 8.0  # for what ends after the patience, on a busy machine
MB = 2**20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The hosted profile with short times."""
    times = dict.fromkeys(("header_timeout_s", "keyless_body_timeout_s", "answer_timeout_s"), PATIENCE_S)
    names = {"host": "127.0.0.1", "model": "florence-2-base", "log_json": False, "drain_delay_s": 0}
    server = start_server(profile="hosted", api_keys=KEYS, max_keyless_bodies=8, body_timeout_s=15, **names, **times)
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log


def connect(server: Server) -> socket.socket:
    url = httpx2.URL(server.url)
    connection = socket.create_connection((url.host, url.port or 80), timeout=20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def head(path: str = "/infer/lmm", length: int = 5 * MB, *more: str, kind: str = "application/json") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {kind}", f"Content-Length: {length}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextmanager
def half_sent(server: Server, count: int, content: bytes) -> Iterator[list[socket.socket]]:
    """So many connections, each of which has sent this and then nothing more."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(count)]
        for connection in connections:
            connection.sendall(content)
        time.sleep(0.3)
        yield connections


def answer(connection: socket.socket) -> tuple[int, Any, bytes]:
    """Status, body and head of what comes until it is whole or the connection ends."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        lines = []
        while (line := stream.readline().strip()) not in (b"", b"\r\n"):
            lines.append(line)
        length = next(int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length"))
        return status, json.loads(stream.read(length)), b"\n".join(lines).lower()


def is_closed(connection: socket.socket, within_s: float = LATEST_S) -> bool:
    """Whether the server ends the connection in this time, having sent nothing more."""
    connection.settimeout(within_s)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def ask(server: Server, *, late: bool = False, header: bool = False, key: str = KEYS[0]) -> httpx2.Response:
    """A customer's request. ``late``: the key stands behind the image."""
    fields = body(api_key=key, max_new_tokens=4, num_beams=1)
    fields["image"]["value"] += "\n" * 10_000
    if late or header:
        fields.pop("api_key")
    if late:
        fields["api_key"] = key
    headers = {"Authorization": f"Bearer {key}"} if header else {}
    return httpx2.post(f"{server.url}/infer/lmm", json=fields, headers=headers, timeout=30)


def is_healthy(server: Server) -> bool:
    began = time.monotonic()
    return httpx2.get(f"{server.url}/healthz").status_code == 200 and time.monotonic() - began < 2


HALF = b'{"model_id": "florence-2-base", "prompt": "<OD>", "image": {"type": "base64", "value": "' + b"A" * 20_000


@pytest.mark.slow
def test_half_bodies_without_a_key_take_no_place_of_a_customer(server: Server) -> None:
    assert ask(server, late=True).status_code == 200
    with half_sent(server, 64, head() + HALF) as strangers:
        assert ask(server).status_code == 200
        assert ask(server, header=True).status_code == 200
        refused = ask(server, late=True)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "Authorization: Bearer" in refused.json()["message"]
        assert is_healthy(server)
        codes = [answer(connection)[1]["code"] for connection in strangers]
    assert codes.count("body_timed_out") == 8
    assert codes.count("overloaded") == 56
    assert ask(server, late=True).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
def test_those_who_have_sent_next_to_nothing_take_nothing(server: Server, kind: str) -> None:
    with half_sent(server, 200, head(kind=kind) + b"-") as strangers:
        assert ask(server, late=True).status_code == 200
        assert is_healthy(server)
        assert answer(strangers[0])[:2][0] == 408


def test_one_key_does_not_take_the_places_of_another(server: Server) -> None:
    with half_sent(server, 60, head("/infer/lmm", 5 * MB, f"Authorization: Bearer {KEYS[0]}") + b"{"), ExitStack():
        refused = ask(server)
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert "this key" in refused.json()["message"]
        assert ask(server, key=KEYS[1]).status_code == 200
    shown = json.dumps({"api_key": KEYS[0], "image": "A" * 9000})[:-2].encode()
    deadline = time.monotonic() + LATEST_S
    while ask(server).status_code != 200:
        assert time.monotonic() < deadline
    with half_sent(server, 60, head() + shown):
        assert ask(server).status_code == 429
        assert ask(server, key=KEYS[1]).status_code == 200


@pytest.mark.parametrize("shown", ['"api_key": "no-such-key"', '"source": "x", "api_key": null'])
def test_a_wrong_key_is_told_while_the_body_is_coming(server: Server, shown: str) -> None:
    with half_sent(server, 1, head() + b"{" + shown.encode() + b', "image": {') as (connection,):
        connection.settimeout(1.5)
        status, told, _ = answer(connection)
    assert (status, told["message"]) == (401, "Unauthorized api_key")


@pytest.mark.parametrize(
    ("path", "kind"), [("/infer/lmm", "image/png"), ("/infer/lmm", "text/plain"), ("/openapi.json", "application/json")]
)
def test_a_body_that_can_hold_no_key_is_not_waited_for(server: Server, path: str, kind: str) -> None:
    with half_sent(server, 1, head(path, kind=kind)) as (connection,):
        connection.settimeout(1.5)
        assert answer(connection)[0] == 401


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/model/add", "/model/remove", "/model/clear"])
@pytest.mark.parametrize("key", ["", f"Authorization: Bearer {KEYS[0]}"])
def test_what_is_not_offered_reads_nothing(server: Server, path: str, key: str) -> None:
    more = [key] if key else []
    with half_sent(server, 1, head(path, 5 * MB, *more)) as (connection,):
        connection.settimeout(1.5)
        assert answer(connection)[0] == (401 if path == "/model/clear" and not key else 403)


@pytest.mark.slow
def test_unfinished_management_takes_neither_memory_nor_time() -> None:
    server = start_server(api_keys=KEYS, keyless_body_timeout_s=PATIENCE_S)
    try:
        before = memory(server)
        with half_sent(server, 40, head("/model/add", 19 * MB) + b'{"model_id": "') as announced:
            assert {answer(connection)[0] for connection in announced} == {413}
        chunked = b"POST /model/add HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        with half_sent(server, 40, chunked + b'd\r\n{"model_id":"\r\n') as slow:
            assert is_healthy(server)
            assert {answer(connection)[0] for connection in slow} == {408}
        with half_sent(server, 40, chunked + b"100000\r\n" + b"x" * MB) as large:
            assert {answer(connection)[0] for connection in large} == {413}
        assert memory(server) - before < 60 * MB
    finally:
        assert server.stop() == 0


def memory(server: Server) -> int:
    """The most memory that the process has had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.slow
def test_heads_that_do_not_come_end(server: Server) -> None:
    with half_sent(server, 50, b"") as silent, half_sent(server, 50, b"POST /infer/lmm HTTP/1.1\r\nHost: x\r\nX: ") as trickling:
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE_S + 1:
            try:
                trickling[0].sendall(b"x")
            except OSError:
                break
            time.sleep(0.2)
        assert is_healthy(server)
        assert all(is_closed(connection) for connection in silent)
        status, told, lines = answer(trickling[1])
        assert (status, told["code"]) == (408, "body_timed_out")
        assert b"connection: close" in lines
        assert b"x-request-id" in lines
        assert is_closed(trickling[1])


@pytest.mark.slow
def test_a_head_that_trickles_behind_an_answer_ends_too(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(connection)[0] == 200
        connection.sendall(b"GET /hea")
        assert answer(connection)[0] == 408
        assert is_closed(connection)


@pytest.mark.slow
def test_a_kept_connection_outlives_the_time_for_heads(server: Server) -> None:
    with connect(server) as connection:
        for pause in (PATIENCE_S + 1, 0):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer(connection)[0] == 200
            time.sleep(pause)


@pytest.mark.slow
def test_a_body_behind_its_answer_is_not_read_for_ever(server: Server) -> None:
    with connect(server) as refused, connect(server) as answered:
        refused.sendall(head(length=10**9))
        answered.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert answer(refused)[0] == 413
        assert answer(answered)[0] == 200
        deadline = time.monotonic() + 25
        while not (has_ended(refused) and has_ended(answered)):
            assert time.monotonic() < deadline
            time.sleep(0.2)


def has_ended(connection: socket.socket) -> bool:
    """Whether nothing more can be sent."""
    try:
        connection.sendall(b"x" * 100)
    except OSError:
        return True
    return False


def test_a_connection_goes_on_behind_a_body_that_was_refused(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(head("/infer/lmm?api_key=wrong", 100_000))
        assert answer(connection)[0] == 401
        connection.sendall(b"x" * 100_000 + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(connection)[0] == 200


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_left(server: Server) -> None:
    with connect(server) as connection:
        connection.settimeout(0.5)
        assert is_full_at_last(connection, b"GET /docs/errors HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        time.sleep(2 * PATIENCE_S + 1)
        connection.settimeout(20)
        assert ends_at_last(connection)
    assert is_healthy(server)


def is_full_at_last(connection: socket.socket, content: bytes) -> bool:
    """Whether there is no more room for what is sent, as nothing is taken out at the other end."""
    try:
        for _ in range(100_000):
            connection.sendall(content)
    except TimeoutError:
        return True
    return False


def ends_at_last(connection: socket.socket) -> bool:
    """Whether the server has given up the connection, once all that it has sent is read."""
    try:
        while connection.recv(2**16):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (head(length=2).replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nContent-Length"), 400, "bad_framing"),
        (b"POST /infer/lmm HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_framing"),
        (b"POST /infer/lmm HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_framing"),
        (b"POST /infer/lmm HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "bad_framing"),
        (b"POST /infer/lmm HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "bad_framing"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_framing"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431, "headers_too_large"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /healthz?" + b"y" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "headers_too_large"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 300_000, 431, "headers_too_large"),
        (b"POST /infer/lmm HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5000, 415, ""),
    ],
)
def test_http_that_is_none(server: Server, content: bytes, status: int, code: str) -> None:
    if not code:  # tiny chunks
        content = content.replace(b"Transfer", f"Authorization: Bearer {KEYS[0]}\r\nContent-Type: application/json\r\nTransfer".encode())
        status, code = 400, "bad_framing"
    with connect(server) as connection:
        connection.sendall(content)
        got, told, lines = answer(connection)
        assert (got, told["code"]) == (status, code), told
        assert b"connection: close" in lines
        assert is_closed(connection)
    assert is_healthy(server)


def test_a_client_that_waits_to_be_told_to_go_on(server: Server) -> None:
    content = json.dumps(body(api_key=KEYS[0], num_beams=1)).encode()
    with connect(server) as connection:
        connection.sendall(head("/infer/lmm", len(content), "Expect: 100-continue"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(content)
        assert answer(connection)[0] == 200
    with connect(server) as connection:
        connection.sendall(head("/infer/lmm?api_key=wrong", len(content), "Expect: 100-continue"))
        status, _, lines = answer(connection)
        assert status == 401
        assert b"connection: close" in lines
        assert is_closed(connection)


def test_addresses_that_others_claim_are_not_believed(server: Server) -> None:
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    told = httpx2.get(f"{server.url}/no/such/path", headers={**headers, "Authorization": f"Bearer {KEYS[0]}"}).json()
    server.wait_for("path=/no/such/path", 10)
    assert "203.0.113.9" not in server.log
    assert "https://" not in told["help_url"]


@pytest.mark.slow
def test_addresses_that_named_proxies_tell_are_believed() -> None:
    server = start_server(trusted_proxies=["127.0.0.0/8"])
    try:
        httpx2.get(f"{server.url}/info", headers={"X-Forwarded-For": "203.0.113.9"})
        assert "client=203.0.113.9" in server.wait_for("path=/info.*", 10).group(0)
    finally:
        assert server.stop() == 0
