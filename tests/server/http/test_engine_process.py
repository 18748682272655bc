"""A server whose models run in a process of their own: what happens to that process, and what clients and probes see of it."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.server.fakes import body
from tests.server.process import Server, asked, start_server

pytestmark = pytest.mark.slow

LONG_S = 60.0
HUNG_STEP = """
import time
from florence2.engine.batch import Batch
step = Batch.step
def hang(self):
    if any(request.search.num_rows == 5 for request in self.requests):
        time.sleep(1000)
    return step(self)
Batch.step = hang
"""
HANGING: dict[str, Any] = {"num_beams": 5}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = start_server(engine_prelude=HUNG_STEP, engine_heartbeat_s=3)
    yield server
    assert server.stop() == 0, server.log


def post(server: Server, **fields: Any) -> httpx2.Response:
    return httpx2.post(f"{server.url}/infer/lmm", json=body(model_id="florence-2-demo", **fields), timeout=LONG_S)


def engine_pid(server: Server) -> int:
    """The number of the engine's process."""
    children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    for pid in " ".join(path.read_text() for path in children).split():
        if b"florence2.engine_process.child" in Path("/proc", pid, "cmdline").read_bytes():
            return int(pid)
    raise AssertionError("there is no such process")


def readiness(server: Server) -> str:
    answer = httpx2.get(f"{server.url}/readiness").json()
    return answer.get("reason", answer["status"])


def wait_for(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_the_server_itself_does_not_load_pytorch(server: Server) -> None:
    assert post(server).status_code == 200
    assert "libtorch" not in Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "libtorch" in Path(f"/proc/{engine_pid(server)}/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSTOP])
def test_requests_of_a_process_that_ends_are_told_so_and_the_next_is_answered(server: Server, number: int) -> None:
    answers: list[httpx2.Response] = []
    streamed: list[str] = []

    def stream() -> None:
        fields = body(model_id="florence-2-demo", stream=True, **HANGING)
        with httpx2.stream("POST", f"{server.url}/infer/lmm", json=fields, timeout=LONG_S) as response:
            streamed.append(response.read().decode())

    callers = [threading.Thread(target=lambda: answers.append(post(server, **HANGING))) for _ in range(3)]
    callers.append(threading.Thread(target=stream))
    for caller in callers:
        caller.start()
    wait_for(lambda: "requests_under_way 20" in asked(f"{server.url}/metrics").text)
    pid = engine_pid(server)
    os.kill(pid, number)
    reasons = set()
    while engine_gone(pid) is False or (reason := readiness(server)) != "ready":
        reasons.add(readiness(server))
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
    for caller in callers:
        caller.join(LONG_S)
    for answer in answers:
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "engine_died", "2")
    assert "engine_died" in streamed[0]
    assert "engine restarting" in reasons
    assert reason == "ready"
    assert post(server).status_code == 200
    assert engine_pid(server) != pid


def engine_gone(pid: int) -> bool:
    return not Path("/proc", str(pid)).exists()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_a_server_that_is_killed_leaves_no_process_behind() -> None:
    server = start_server()
    pid = engine_pid(server)
    os.kill(pid, signal.SIGSTOP)  # not even one that can't see that its server is gone
    server.process.kill()
    server.wait()
    wait_for(lambda: engine_gone(pid))


def test_a_process_that_never_starts_ends_the_server() -> None:
    server = start_server(engine_prelude="import os\nos._exit(3)", wait_until_ready=False)
    assert server.wait() == 1
    assert "the server can't start: the engine's process ended 3 times in a row, the last time because it exited with 3" in server.log
    assert "Traceback" not in server.log


def test_readiness_tells_of_a_pass_that_hangs_in_the_server_itself() -> None:
    server = start_server(prelude=HUNG_STEP, engine_process=False, engine_step_timeout_s=1, drain_timeout_s=4)
    caller = threading.Thread(target=lambda: post(server, **HANGING))
    caller.start()
    try:
        wait_for(lambda: readiness(server) == "engine does not answer")
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
    finally:
        assert server.stop() == 0
        caller.join(LONG_S)
    assert re.search("ended without waiting|did not end", server.log)
