"""Streamed answers over real sockets: whoever reads, however slowly, and whenever the server ends."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from tests.server.fakes import body
from tests.server.process import Server, asked, start_server

pytestmark = pytest.mark.slow
PRELUDE = "from tests.server import scripted\nscripted.load_everywhere({word!r}, {pause_s})"
PAUSE_S = 0.1


def connect(server: Server, *, version: str = "1.1", stream: bool = True, **fields: Any) -> socket.socket:
    """A connection on which a request was sent."""
    url, content = httpx2.URL(server.url), json.dumps(body(stream=stream, **fields)).encode()
    connection = socket.create_connection((url.host, url.port or 80), timeout=20)
    head = f"POST /infer/lmm HTTP/{version}\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def read(connection: socket.socket, until: bytes | None = None) -> bytes:
    """What comes on a connection up to some bytes, or to its end."""
    received = b""
    while until is None or until not in received:
        part = connection.recv(2**14)
        if not part:
            assert until is None, received
            break
        received += part
    return received


def wait_for_metric(server: Server, line: str, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while line not in (metrics := asked(f"{server.url}/metrics").text):
        assert time.monotonic() < deadline, metrics
        time.sleep(0.05)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = start_server(
        engine_process=False, prelude=PRELUDE.format(word="고양이", pause_s=PAUSE_S), stream_keep_alive_s=PAUSE_S / 3, drain_timeout_s=6
    )
    yield server
    assert server.stop() == 0, server.log


def test_events_come_one_by_one(server: Server) -> None:
    times, texts = [], []
    fields = body(stream=True, max_new_tokens=5)
    with httpx2.stream("POST", f"{server.url}/infer/lmm", json=fields, timeout=20) as response:
        for line in response.iter_lines():
            if line.startswith("event: text"):
                times.append(time.monotonic())
            elif line.startswith("data: ") and len(texts) < len(times):
                texts.append(json.loads(line.removeprefix("data: "))["text"])
    assert texts == [f" 고양이{number}" for number in range(5)]
    assert times[-1] - times[0] > 2 * PAUSE_S
    assert response.headers["x-accel-buffering"] == "no"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl_reads_a_stream(server: Server) -> None:
    command = ["curl", "-sN", f"{server.url}/infer/lmm", "-H", "Content-Type: application/json", "--data-binary", "@-"]
    sent = json.dumps(body(stream=True, max_new_tokens=3)).encode()
    read = subprocess.run(command, input=sent, capture_output=True, timeout=20, check=True).stdout.decode()
    lines = read.split("\n")
    assert lines.count("event: text") == 3
    assert ": keep-alive" in lines
    assert 'response":{"<CAPTION>":" 고양이0 고양이1 고양이2"}}' in read.rpartition("event: done\n")[2]


def test_a_client_of_the_old_protocol_reads_to_the_end_of_the_connection(server: Server) -> None:
    with connect(server, version="1.0", max_new_tokens=2) as connection:
        received = read(connection)
    head, _, content = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert content.startswith((b"event: text\n", b": keep-alive\n"))
    assert content.rpartition(b"event: ")[2].startswith(b"done\n")


def test_a_connection_is_used_again_after_a_stream(server: Server) -> None:
    with connect(server, max_new_tokens=2) as connection:
        read(connection, b"\r\n0\r\n\r\n")
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_client_that_leaves_is_noticed(server: Server) -> None:
    with connect(server) as connection:
        read(connection, b"event: text")
        wait_for_metric(server, "florence2_requests_under_way 1.0")
    wait_for_metric(server, "florence2_requests_under_way 0.0")
    server.wait_for("path=/infer/lmm status=200 .*code=client_left", 10)


def test_a_client_that_reads_nothing_holds_its_slot_for_the_time_of_a_request() -> None:
    # More than the system takes in for a client, and in little time on a busy machine too.
    prelude = "from tests.server import scripted\nscripted.load_everywhere(40_000 * 'x', 0)"
    server = start_server(engine_process=False, prelude=prelude, request_timeout_s=1.5, answer_timeout_s=2)
    try:
        with connect(server) as connection:
            read(connection, b"event: text")
            wait_for_metric(server, "florence2_requests_under_way 1.0")
            wait_for_metric(server, "florence2_requests_under_way 0.0")
            server.wait_for("path=/infer/lmm status=200 .*code=timed_out", 10)
            time.sleep(4.5)  # what was read above may have begun the time anew once
            last = b""
            with suppress(ConnectionError):  # what was on its way comes, and not the end of the body
                while part := connection.recv(2**20):
                    last = part
            assert not last.endswith(b"\r\n0\r\n\r\n")
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
    finally:
        server.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")
def test_a_server_that_ends_lets_streams_end_or_says_why_not(server: Server) -> None:
    with connect(server, max_new_tokens=12) as short, connect(server) as long:
        for connection in (short, long):
            read(connection, b"event: text")
        server.process.send_signal(signal.SIGTERM)
        ends = [read(connection).rpartition(b"event: ")[2] for connection in (short, long)]
    assert ends[0].startswith(b"done\n")
    assert ends[1].startswith(b"error\n")
    assert b'"code":"draining"' in ends[1]
    assert ends[1].endswith(b"\r\n0\r\n\r\n")
    assert server.wait() == 0
    assert "Traceback" not in server.log
