"""What holds for all tests: programs that they start can be interrupted, and processes that test beside each other share the processors.

A shell that puts this run in the background has it ignore SIGINT, ``nohup`` SIGHUP, and programs that are started from here would inherit
that.
PyTorch takes a thread for each processor, and threads that wait for each other's share of a product spin: two processes on two processors
get through a third of what they do with a thread each. ``tests/model/cpu`` and ``tests/parity`` compute with several all the same.
Tests leave nothing in the repository's root: what lies there would be committed.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from florence2.openmp import SPIN, SPIN_COUNT, THREADS

ROOT = Path(__file__).resolve().parents[1]
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
FOUND = pytest.StashKey[set[str]]()

if num_workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault(THREADS, str(max(1, (os.cpu_count() or 1) // int(num_workers))))
    os.environ.setdefault(SPIN, SPIN_COUNT)  # libgomp reads it when PyTorch is imported, which a test may do before the package does

# A database of keys that the user of this machine has is not theirs: servers would ask for its keys.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="florence2-data-")
atexit.register(shutil.rmtree, os.environ["XDG_DATA_HOME"], ignore_errors=True)

# Without a GPU its kernels run in Triton's interpreter. Triton reads this when it is imported, which PyTorch may do in any test.
if shutil.which("nvidia-smi") is None:
    os.environ["TRITON_INTERPRET"] = "1"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.schedule import Schedule

    config.option.loadscopereorder = False  # the order is that of the tests
    return Schedule(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if IS_WORKER:
        from tests.schedule import rank

        items.sort(key=lambda item: rank(item.nodeid))


def pytest_sessionstart(session: pytest.Session) -> None:
    if not IS_WORKER:
        session.config.stash[FOUND] = _untracked()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if left := _untracked() - session.config.stash.get(FOUND, set()) if not IS_WORKER else None:
        session.config.get_terminal_writer().line(f"\ntests left in {ROOT}: {', '.join(sorted(left))}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _untracked() -> set[str]:
    """What lies in the repository's root that git neither keeps nor ignores; nothing where this is no repository."""
    command = ["git", "-C", str(ROOT), "ls-files", "--others", "--exclude-standard", "--directory"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {line.partition("/")[0] for line in listed.splitlines() if line.count("/") == line.endswith("/")}
