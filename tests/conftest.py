"""What holds for all tests: programs that they start can be interrupted, and processes that test beside each other share the processors.

A shell that puts this run in the background has it ignore SIGINT, and every program that is started from here would inherit that.
PyTorch takes a thread for each processor, and threads that wait for each other's share of a product spin: two processes on two processors
get through a third of what they do with a thread each. ``tests/model/cpu`` and ``tests/parity`` compute with several all the same.
"""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

if num_workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(num_workers))))

# A database of keys that the user of this machine has is not theirs: servers would ask for its keys.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="florence2-data-")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# One Ray for all tests of the cluster; the other tests of a file stay together, as they share servers and browsers.
@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = Path(__file__).parent / "cluster"
        item.add_marker(pytest.mark.xdist_group("cluster" if folder in item.path.parents else str(item.path)))
