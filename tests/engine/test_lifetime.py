"""The engine in processes that fork and in interpreters that end: real processes, since nothing else shows it."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import florence2
from fixtures.checkpoints import Size, write_checkpoint
from florence2.engine.loading import Loading
from florence2.errors import EngineClosed
from florence2.model import TextConfig, VisionConfig

PATIENCE_S = 120.0
HEAD = """
    import os, signal, sys, threading, time
    import florence2
    from concurrent import futures
    from florence2.errors import EngineClosed
    from PIL import Image
    IMAGE = Image.new("RGB", (9, 9))
    folder = sys.argv[1]

    def refused(call):
        began = time.monotonic()
        try:
            call()
        except EngineClosed as error:
            return "loaded in another process" in error.message and "load it here" in error.message and time.monotonic() - began < 2
        return False
"""
LOAD = """
    import signal, sys, time
    import florence2, florence2.engine.engine
    BEFORE
    print("loading", flush=True)
    florence2.load(sys.argv[1])
    print("loaded", flush=True)
    time.sleep(60)
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that takes a second to load, so that a signal meets it on the way."""
    size = Size(VisionConfig(depths=(1, 1, 1, 1)), TextConfig(encoder_layers=2, decoder_layers=2), 768)
    return write_checkpoint(tmp_path_factory.mktemp("large"), size=size)


def run(script: str, folder: Path) -> list[str]:
    """What a script behind ``HEAD`` prints, in a process of its own that must end well and say nothing on standard error."""
    # Newer interpreters warn of every fork beside threads, which is what is tested here.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(HEAD) + textwrap.dedent(script), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.slow
@needs_fork
def test_every_entry_of_a_forked_engine_says_where_it_belongs(folder: Path) -> None:
    script = """
    import multiprocessing

    def child():
        calls = [
            lambda: engine.run(IMAGE, "<OD>"), lambda: engine.run_many(IMAGE, ["<OD>"]), lambda: engine.submit(IMAGE, "<OD>"),
            lambda: engine.submit_many(IMAGE, ["<OD>"]), lambda: engine.check_length("<OD>"), engine.__enter__,
            pending.result, lambda: [one.result() for one in futures.as_completed([pending])],
        ]
        print([refused(call) for call in calls].count(True), "of", len(calls))
        engine.close()
        engine.close(cancel=True)
        print("closed", flush=True)

    engine = florence2.load(folder, device="cpu")
    called = []
    pending = [engine.submit(IMAGE, "<OD>") for _ in range(20)][-1]
    pending.add_done_callback(lambda _: called.append(os.getpid()))
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    print(process.exitcode, pending.result().task)
    engine.close()
    print(called == [os.getpid()])  # in the child nobody called it
    """
    assert run(script, folder) == ["8 of 8", "closed", "0 <OD>", "True"]


@pytest.mark.slow
@needs_fork
def test_forks_at_any_moment_end(folder: Path) -> None:
    """Beside busy threads, which may hold any lock; the children leave a ``with`` block and the interpreter with its exit handlers."""
    script = """
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            engine.run(IMAGE, "<OD>", max_new_tokens=4)

    def fork(seconds):
        time.sleep(seconds)
        pid = os.fork()
        if pid == 0:
            sys.exit(7 if refused(lambda: engine.run(IMAGE, "<OD>")) else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    with florence2.load(folder, device="cpu") as engine:
        threads = [threading.Thread(target=busy, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        print({fork(number / 300) for number in range(4)})
        stop.set()
        for thread in threads:
            thread.join()
        print(engine.run(IMAGE, "<OD>").task)
    """
    assert run(script, folder) == ["{7}", "<OD>"]


@pytest.mark.slow
@needs_fork
def test_a_child_loads_its_own(folder: Path) -> None:
    """Also one that inherits an engine, as DataLoader workers and gunicorn's --preload do."""
    script = """
    engine = florence2.load(folder, device="cpu")
    expected = engine.run(IMAGE, "<OD>").token_ids
    pid = os.fork()
    if pid == 0:
        del engine
        with florence2.load(folder, device="cpu") as own:
            sys.exit(7 if own.run(IMAGE, "<OD>").token_ids == expected else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert run(script, folder) == ["7"]


@pytest.mark.slow
@needs_fork
def test_workers_of_a_data_loader_are_told(folder: Path) -> None:
    script = """
    from torch.utils.data import DataLoader, Dataset

    class Pictures(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return refused(lambda: engine.run(IMAGE, "<OD>"))

    engine = florence2.load(folder, device="cpu")
    print([bool(batch.all()) for batch in DataLoader(Pictures(), num_workers=2, multiprocessing_context="fork")])
    print(engine.run(IMAGE, "<OD>").task)
    """
    assert run(script, folder) == ["[True, True]", "<OD>"]


def test_an_engine_is_not_sent_to_another_process(folder: Path) -> None:
    with florence2.load(folder, device="cpu") as engine:
        for copied in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="load one there"):
                copied(engine)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "before", "expected"),
    [
        ("SIGINT", "", -signal.SIGINT),
        ("SIGTERM", "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))", 143),
    ],
)
def test_a_signal_while_loading_ends_without_an_abort(large: Path, name: str, before: str, expected: int) -> None:
    for delay_s in (0.0, 0.1, 0.25, 0.5):
        assert _interrupted(large, before, getattr(signal, name), delay_s) == expected


def _interrupted(folder: Path, before: str, number: int, delay_s: float) -> int:
    """The exit code of a program that gets a signal so long after it has begun to load."""
    command = [sys.executable, "-c", textwrap.dedent(LOAD).replace("BEFORE", before), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay_s)
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert "terminate called" not in errors
    assert "Exception ignored" not in errors
    return process.returncode


def test_loading_is_stopped_for_all_who_wait() -> None:
    entered, may_go_on = threading.Event(), threading.Event()
    ended: list[BaseException] = []

    def work() -> None:
        try:
            entered.set()
            while not may_go_on.wait(0.01):
                pass
        except BaseException as error:
            ended.append(error)
            raise

    loading = Loading(work)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(loading.result)
        assert entered.wait(PATIENCE_S)
        loading.stop()
        with pytest.raises(EngineClosed, match="loading was stopped"):
            waiting.result(PATIENCE_S)
        loading._thread.join(PATIENCE_S)
    assert not loading._thread.is_alive()
    assert len(ended) == 1
    assert not isinstance(ended[0], Exception)  # what loading catches on its way must not swallow it
    may_go_on.set()


def test_loading_that_was_stopped_before_it_began_does_nothing() -> None:
    loading = Loading(lambda: pytest.fail("it ran"))
    loading.stop()
    with pytest.raises(EngineClosed):
        loading.result()


def test_what_loading_raises_is_raised() -> None:
    with pytest.raises(SystemExit):
        Loading(sys.exit).result()
    assert Loading(lambda: 3).result() == 3
