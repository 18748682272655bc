"""How PyTorch's threads are settled, in processes of their own: it happens once, at the first import."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from florence2.cores import busy_seconds
from florence2.engine.threads import FreeCores
from florence2.openmp import SPIN, SPIN_COUNT

# libgomp shows what it has read where it is asked to, when it is loaded.
ASKED = {"OMP_DISPLAY_ENV": "VERBOSE"}


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    names = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, env={**names, **environment}, capture_output=True, text=True, timeout=120, check=True)


needs_libgomp = pytest.mark.skipif(sys.platform != "linux", reason="PyTorch has libgomp on Linux")
TRAIN = """
from florence2.cli import main
try:
    main(["train", "--data", "synthetic:1", "--output", "/nope/run", "--model", "/nope"])
except SystemExit:
    import sys
    assert "torch" in sys.modules
"""
ENGINE = "import os, florence2; florence2.Engine; print({k for k in os.environ if k.startswith('GOMP')} or 'clean')"


@pytest.mark.slow
@needs_libgomp
@pytest.mark.parametrize(
    ("script", "environment", "expected"),
    [
        (ENGINE, {}, f"{SPIN} = '{SPIN_COUNT}'"),
        ("from florence2.engine.engine import load", {}, f"{SPIN} = '{SPIN_COUNT}'"),
        (TRAIN, {}, f"{SPIN} = '{SPIN_COUNT}'"),
        (ENGINE, {SPIN: "77"}, f"{SPIN} = '77'"),
        (ENGINE, {"OMP_WAIT_POLICY": "PASSIVE"}, f"{SPIN} = '0'"),
        (ENGINE, {"OMP_WAIT_POLICY": "ACTIVE"}, "OMP_WAIT_POLICY = 'ACTIVE'"),
        (f"import torch\n{ENGINE}", {}, f"{SPIN} = '300000'"),  # too late: it has been loaded
    ],
)
def test_how_long_threads_spin(script: str, environment: dict[str, str], expected: str) -> None:
    done = run(script, **environment, **ASKED)
    assert expected in done.stderr


@pytest.mark.slow
def test_programs_that_are_started_later_are_left_alone() -> None:
    assert run(ENGINE).stdout.strip() == "clean"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "environment", "cores", "expected"),
    [
        ("", {}, 1, 1),
        ("torch.set_num_threads(3)", {}, 2, 2),
        ("torch.set_num_threads(1)", {}, 2, 1),  # fewer than there are is a wish
        ("", {"OMP_NUM_THREADS": "2"}, 1, min(2, os.cpu_count() or 1)),  # so is this
    ],
)
def test_no_more_threads_than_processors(before: str, environment: dict[str, str], cores: int, expected: int) -> None:
    """Also in the engine's own thread, which begins later and in which everything is computed."""
    script = f"""
        import threading
        from florence2.engine import threads
        import torch
        {before or "pass"}
        threads.usable_cores = lambda: {cores}
        first = threading.Thread(target=threads.bound_threads)
        first.start()
        first.join()
        second = threading.Thread(target=lambda: print(torch.get_num_threads()))
        second.start()
        second.join()
    """
    assert run(script, **environment).stdout.strip() == str(expected)


class Machine:
    """Four processors, on which this process and others compute."""

    def __init__(self) -> None:
        self.now = self.own = self.others = 0.0

    def pass_time(self, seconds: float, own: float, others: float) -> None:
        self.now += seconds
        self.own += seconds * own
        self.others += seconds * others


def test_threads_follow_what_others_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    given = [4]
    monkeypatch.setattr("torch.get_num_threads", lambda: given[-1])
    monkeypatch.setattr("torch.set_num_threads", given.append)
    machine = Machine()
    free = FreeCores(lambda: machine.own + machine.others, lambda: machine.own, lambda: machine.now, num_cores=4)
    free.fit()
    for others, expected in ((0.0, 4), (0.3, 4), (1.0, 3), (1.7, 2), (2.0, 2), (4.0, 1), (9.0, 1), (0.1, 4)):
        machine.pass_time(0.2, own=2.0, others=others)
        free.fit()
        assert given[-1] == expected, others
    machine.pass_time(0.05, own=0.0, others=4.0)  # too short to tell
    free.fit()
    assert given[-1] == 4
    machine.pass_time(60.0, own=0.0, others=-1.0)  # counters of some systems go back
    free.fit()
    assert given[-1] == 4


def test_threads_stay_where_the_user_has_said_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setattr("torch.set_num_threads", lambda number: pytest.fail("set"))
    for environment, busy in (({"OMP_NUM_THREADS": "2"}, lambda: machine.others), ({}, lambda: None)):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        free = FreeCores(busy, lambda: 0.0, lambda: machine.now, num_cores=2)
        for _ in range(3):
            machine.pass_time(1.0, own=0.0, others=2.0)
            free.fit()


def test_the_kernel_counts_what_is_computed() -> None:
    before, began = busy_seconds(), time.process_time()
    if before is None:
        pytest.skip("no /proc/stat on this system")
    while time.process_time() - began < 0.5:
        pass
    after = busy_seconds()
    assert after is not None
    assert after - before >= 0.4


def test_processors_that_are_not_this_process_s_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    line = "{name} {user} 0 10 5000 7 3 2 1 0 0\n"
    content = "".join(line.format(name=f"cpu{number}", user=100 * number) for number in range(4096))
    (tmp_path / "proc/stat").write_text(line.format(name="cpu", user=10**9) + content + "intr 1 2 3\n")
    numbers = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if not numbers:
        pytest.skip("no affinity on this system")
    assert busy_seconds(tmp_path) == pytest.approx(sum(100 * number + 16 for number in numbers) / os.sysconf("SC_CLK_TCK"))
    assert busy_seconds(tmp_path / "nothing") is None
