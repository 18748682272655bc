"""A server ends within its grace time, whatever hangs; what hangs while loading takes nobody's place."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import httpx2
import pytest

from florence2 import background
from tests.server.fakes import body
from tests.server.process import Server, start_server

GRACE_S = 4
SLACK_S = 4.0  # the interpreter's own end, on a busy machine


def ends(server: Server, *, times: int = 1) -> float:
    """Seconds from the signal to the end."""
    began = time.monotonic()
    for _ in range(times):
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    server.process.wait(60)
    seconds = time.monotonic() - began
    assert server.wait() == 0, server.log
    return seconds


def ask(server: Server, model_id: str, timeout_s: float = 60) -> int:
    """The status of an answer; 0 where there was none."""
    with suppress(httpx2.HTTPError):
        return httpx2.post(f"{server.url}/infer/lmm", json=body(model_id=model_id), timeout=timeout_s).status_code
    return 0


@contextmanager
def askers(server: Server, model_ids: list[str]) -> Iterator[list[int]]:
    """Requests under way, and the statuses of those that are answered."""
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda name=name: statuses.append(ask(server, name))) for name in model_ids]
    for thread in threads:
        thread.start()
    yield statuses
    for thread in threads:
        thread.join(60)


@pytest.mark.slow
def test_models_that_hang_while_loading_hold_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}", "HF_HUB_ETAG_TIMEOUT": "300"}
        server = start_server(loadable="any", environment=hub, drain_timeout_s=GRACE_S, max_loaded_models=1)
        try:
            with askers(server, [f"owner/name-{number}" for number in range(60)]) as statuses:
                # All beyond the few that may be loaded at once are told so, not left to wait.
                deadline = time.monotonic() + 30
                while len(statuses) < 56:
                    assert time.monotonic() < deadline, statuses
                    time.sleep(0.05)
                assert set(statuses) == {503}
                # The built-in model answers, and others are loaded, over and over.
                for model_id in ("florence-2-demo", "florence-2-base", "florence-2-large", "florence-2-base"):
                    assert ask(server, model_id) == 200
                assert ends(server) < GRACE_S + SLACK_S
        finally:
            server.stop()


HUNG_STEP = "import time\nfrom florence2.engine.batch import Batch\nBatch.step = lambda self: time.sleep(1000)"
HUNG_DECODING = "import time\nfrom PIL import ImageFile\nImageFile.ImageFile.load = lambda self: time.sleep(1000)"
HUNG_CLOSING = "import time\nfrom florence2.engine.engine import Engine\nEngine.close = lambda self, **_: time.sleep(1000)"
HUNG_ATEXIT = "import atexit, time\natexit.register(time.sleep, 1000)"
HUNG_THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()"


@pytest.mark.slow
@pytest.mark.parametrize(
    "hung",
    [
        {"prelude": HUNG_STEP, "engine_process": False},
        {"engine_prelude": HUNG_STEP},
        {"engine_prelude": HUNG_CLOSING},
        {"prelude": HUNG_DECODING},
        {"prelude": HUNG_ATEXIT},
        {"prelude": HUNG_THREAD},
    ],
)
def test_the_end_waits_for_nothing_that_hangs(hung: dict[str, Any]) -> None:
    server = start_server(**hung, drain_timeout_s=GRACE_S)
    try:
        with askers(server, ["florence-2-demo"] * 2):
            time.sleep(0.5)
            assert ends(server) < GRACE_S + SLACK_S
    finally:
        server.stop()


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once() -> None:
    server = start_server(engine_prelude=HUNG_STEP, drain_timeout_s=300)
    try:
        with askers(server, ["florence-2-demo"]):
            time.sleep(0.5)
            assert ends(server, times=2) < 1 + SLACK_S
    finally:
        server.stop()


@pytest.mark.slow
def test_a_terminal_that_is_closed_ends_it_in_order() -> None:
    server = start_server()
    address, content = httpx2.URL(server.url), json.dumps(body(model_id="florence-2-demo")).encode()
    head = f"POST /infer/lmm HTTP/1.1\r\nHost: {address.host}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    try:
        with socket.create_connection((address.host, address.port or 80), timeout=60) as connection:
            connection.sendall(head.encode() + content[:-1])
            while "florence2_body_bytes 0.0" in httpx2.get(f"{server.url}/metrics").text:  # its body is being read
                time.sleep(0.05)
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.3)
            connection.sendall(content[-1:])
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert server.wait() == 0, server.log
    finally:
        server.stop()


@pytest.mark.slow
def test_clients_that_do_not_read_hold_nobody() -> None:
    server = start_server(drain_timeout_s=60)
    address = httpx2.URL(server.url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((address.host, address.port or 80))
        client.setblocking(False)
        question = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        deadline = time.monotonic() + 10
        with suppress(BlockingIOError):
            while time.monotonic() < deadline:
                client.send(question * 100)
        time.sleep(1)
        try:
            assert ends(server) < 15
        finally:
            server.stop()


def test_a_thread_frees_what_it_worked_on_before_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is freed later, in a process that is ending, would abort it."""
    freed = []

    class Engine:
        def close(self) -> None:
            pass

        def __del__(self) -> None:
            freed.append(self.__class__.__name__)

    class SlowFuture(Future):
        def set_result(self, result: object) -> None:
            super().set_result(result)
            time.sleep(0.2)  # whoever waits goes on first

    async def close_one() -> list[str]:
        await background.in_thread("closer", partial(Engine().close))
        return list(freed)

    monkeypatch.setattr(background, "Future", SlowFuture)
    assert asyncio.run(close_one()) == ["Engine"]
