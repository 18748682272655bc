"""The engine's process dies and hangs in all ways: who waits knows at once, and it is started again."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from fixtures.checkpoints import write_checkpoint
from florence2.engine_process import supervisor
from florence2.engine_process.messages import CauseElsewhere, LoadOptions
from florence2.engine_process.supervisor import EngineProcess
from florence2.errors import EngineClosed, EngineDied, EngineFailed, ModelNotFound
from tests.server.process import first_in_engine

pytestmark = pytest.mark.slow

IMAGE = Image.new("RGB", (70, 50), "red")
LONG_S = 60
# A request on one of these accounts hangs or breaks the step that answers it.
MISCHIEF = """
import time
from florence2.engine.batch import Batch
step = Batch.step
def mischief(self):
    for request in self.requests:
        if request.fair_key == "hang":
            time.sleep(1000)
        if request.fair_key == "break":
            raise KeyError("broken")
    return step(self)
Batch.step = mischief
"""


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> LoadOptions:
    folder = write_checkpoint(tmp_path_factory.mktemp("checkpoint"), generation={"num_beams": 1, "max_new_tokens": 8})
    return LoadOptions(str(folder), device="cpu", precision="fp32", is_warmed_up=False)


@pytest.fixture(scope="module")
def process() -> Iterator[EngineProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(first_in_engine(MISCHIEF))
        process = EngineProcess(num_lanes=2, step_timeout_s=1.0, heartbeat_s=4.0)
        patch.setattr(supervisor, "LOADING_S", 4.0)
        process.start()
        wait_for(lambda: process.is_running)
        yield process
        process.stop()
    assert process.state == "stopped"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "WELL_S", 0.0)  # so that every pause is the shortest


def wait_for(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill(process: EngineProcess, number: int) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV"), (signal.SIGSTOP, "said nothing"), (None, "has lasted")]
)
def test_it_is_started_again_however_it_ends(process: EngineProcess, options: LoadOptions, number: int | None, reason: str) -> None:
    deaths: list[float] = []
    process.on_death = lambda: deaths.append(time.monotonic())
    engine = process.load(options)
    before, pid = process.num_restarts, process.pid
    waiting = engine.submit_many(IMAGE, ["<OD>"], fair_key="hang")[0]
    wait_for(lambda: engine.stats().num_running)
    if number is not None:
        kill(process, number)
    assert isinstance(waiting.exception(LONG_S), EngineDied)
    wait_for(lambda: deaths)
    assert reason in process.last_failure
    assert engine.is_lost
    with pytest.raises(EngineDied):
        engine.submit_many(IMAGE, ["<OD>"])
    engine.close()
    again = process.load(options)  # waits for the new process
    assert again.submit_many(IMAGE, ["<OD>"])[0].result(LONG_S).task == "<OD>"
    assert (process.num_restarts, process.state) == (before + 1, "running")
    assert process.pid != pid
    again.close()


def test_a_step_that_fails_ends_nothing_but_its_requests(process: EngineProcess, options: LoadOptions) -> None:
    engine = process.load(options)
    error = engine.submit_many(IMAGE, ["<OD>"], fair_key="break")[0].exception(LONG_S)
    assert isinstance(error, EngineFailed)
    assert isinstance(error.__cause__, CauseElsewhere)
    assert "in mischief" in str(error.__cause__)
    assert engine.submit_many(IMAGE, ["<OD>"])[0].result(LONG_S).task == "<OD>"
    engine.close()
    with pytest.raises(EngineClosed):
        engine.submit_many(IMAGE, ["<OD>"])


def test_what_is_cancelled_leaves_the_engine(process: EngineProcess, options: LoadOptions) -> None:
    engine = process.load(options)
    futures = [engine.submit_many(IMAGE, ["<CAPTION>"], max_new_tokens=100)[0] for _ in range(4)]
    assert all(future.cancel() for future in futures)
    wait_for(lambda: not (engine.stats().num_running or engine.stats().num_waiting))
    assert engine.stats().num_steps < 400
    engine.close()


def test_errors_of_loading_are_those_of_loading_here(process: EngineProcess) -> None:
    with pytest.raises(ModelNotFound, match="no folder /no/such/folder"):
        process.load(LoadOptions("/no/such/folder"))
    assert process.state == "running"


def test_signals_for_the_terminal_pass_it_by(process: EngineProcess) -> None:
    pid, num_restarts = process.pid, process.num_restarts
    for number in (signal.SIGINT, signal.SIGTERM):
        kill(process, number)
    time.sleep(0.3)
    assert (process.pid, process.num_restarts, process.is_running) == (pid, num_restarts, True)


def test_one_that_can_never_start_pauses_longer_each_time(monkeypatch: pytest.MonkeyPatch, options: LoadOptions) -> None:
    monkeypatch.setattr(supervisor, "WELL_S", 60.0)
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.5)
    monkeypatch.setattr(supervisor, "LONGEST_WAIT_S", 0.8)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    process = EngineProcess(num_lanes=1, step_timeout_s=60, heartbeat_s=60)
    deaths: list[float] = []
    process.on_death = lambda: deaths.append(time.monotonic())
    with pytest.raises(EngineDied):
        process.load(options)
    wait_for(lambda: len(deaths) == 2)
    with pytest.raises(EngineDied) as caught:  # at once: the next start is too far away
        process.load(options)
    assert caught.value.retry_after_s == 1
    assert deaths[1] - deaths[0] > 0.45
    assert process.last_failure == "it exited with 1"
    process.stop()
    assert not process.is_running
    with pytest.raises(EngineClosed):
        process.load(options)
