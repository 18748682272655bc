"""How PyTorch's threads are settled, in processes of their own: it happens once, at the first import."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from florence2.engine.threads import SPIN, SPIN_COUNT

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


def test_programs_that_are_started_later_are_left_alone() -> None:
    assert run(ENGINE).stdout.strip() == "clean"


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
