"""Many idle connections, and a log that nobody reads, stop nobody."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from florence2.server.http.descriptors import ConnectionBound
from florence2.server.http.log_writer import QueuedHandler
from florence2.server.http.logs import JsonFormatter
from tests.server.process import start_server

LIMIT = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({}, {}))"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("soft", "hard", "count", "settings"), [(256, 4096, 1100, {}), (512, 512, 1100, {}), (4096, 4096, 300, {"max_connections": 50})]
)
def test_idle_connections(soft: int, hard: int, count: int, settings: dict[str, Any]) -> None:
    server = start_server(prelude=LIMIT.format(soft, hard), **settings)
    address = httpx2.URL(server.url)
    try:
        with ExitStack() as stack:
            for number in range(count):
                if number % 100 == 0:  # not faster than a busy machine takes them
                    time.sleep(0.3)
                stack.enter_context(socket.create_connection((address.host, address.port or 80), timeout=10))
            for _ in range(5):
                assert httpx2.get(f"{server.url}/healthz", timeout=10).status_code == 200
                time.sleep(0.2)
    finally:
        assert server.stop() == 0


def test_of_many_connections_those_that_came_last_are_kept() -> None:
    closed: list[int] = []

    def connection(number: int, *, is_busy: bool = False) -> SimpleNamespace:
        transport = SimpleNamespace(close=lambda: closed.append(number))
        return SimpleNamespace(transport=transport, idle_since=number, cycle=SimpleNamespace(response_complete=False) if is_busy else None)

    bound, connections = ConnectionBound(4, None), [connection(number, is_busy=number == 1) for number in (3, 0, 5, 1, 4, 2)]
    bound.enforce(connections[:4])
    assert closed == []
    bound.enforce(connections)
    assert closed == [0, 2]


@pytest.mark.slow
def test_log_that_nobody_reads() -> None:
    reading, writing = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start_server(stderr=writing, port=port)
    try:
        with httpx2.Client(base_url=server.url, timeout=10) as client:
            for _ in range(1500):
                assert client.get("/info").status_code == 200
    finally:
        began = time.monotonic()
        assert server.stop() == 0
        os.close(writing)
        os.close(reading)
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_lost_lines_are_counted() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        handler = QueuedHandler(stream, max_lines=10)
        handler.setFormatter(JsonFormatter())
        began = time.monotonic()
        for number in range(2000):
            handler.handle(logging.LogRecord("x", logging.INFO, "file", 1, f"{number} " + "x" * 1000, None, None))
        handler.flush()
        assert time.monotonic() - began < 5
        text = b""
        while not text.endswith(b"\n") or written(text) + lost(text) < 2000:
            text += os.read(reading, 2**16)
    os.close(reading)
    assert written(text) + lost(text) == 2000
    assert 10 < written(text) < 500


def written(text: bytes) -> int:
    return text.count(b"x" * 1000)


def lost(text: bytes) -> int:
    messages = [json.loads(line)["message"] for line in text.decode().splitlines() if line.endswith("}") and "dropped" in line]
    return sum(int(message.split()[0]) for message in messages)


def test_reader_that_has_gone() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        handler = QueuedHandler(stream)
        os.close(reading)
        handler.handle(logging.LogRecord("x", logging.INFO, "file", 1, "to nobody", None, None))
        handler.flush()
        assert handler.num_dropped == 1
