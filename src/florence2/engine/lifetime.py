"""What becomes of the engine's threads when the interpreter ends or the process forks.

A thread inside PyTorch that wakes up in an interpreter that is ending takes the process down with an abort, so each is asked to stop
and waited for first. A forked child has none of its parent's threads: callers that wait for one there get an error. Knows threads and how
to stop them, nothing of what they do.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
import weakref
from typing import Protocol

EXIT_PATIENCE_S = 10.0  # how long a leaving interpreter waits for what runs
LOOK_AGAIN_S = 0.1
INTERRUPTED = 130  # the exit code that shells know for Ctrl-C


class Worker(Protocol):
    """Something that has a thread."""

    def stop(self) -> None:
        """Ask the thread to end, whatever it still has to do; does not wait."""
        ...

    def leave_behind(self) -> None:
        """In a forked child, which has no such thread: fail all that wait for it."""
        ...


# Weakly, so that a worker without references is freed; a thread lives until it has freed what it worked on.
_workers: weakref.WeakSet[Worker] = weakref.WeakSet()
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def watch(worker: Worker, thread: threading.Thread) -> None:
    """Have ``worker`` stopped, and ``thread`` waited for, before the interpreter ends."""
    _workers.add(worker)
    _threads.add(thread)


def _leave() -> None:
    """End all threads before the interpreter does, also those that one of them starts on its last way."""
    end = time.monotonic() + EXIT_PATIENCE_S
    try:
        while (running := [thread for thread in list(_threads) if thread.is_alive()]) and time.monotonic() < end:
            for worker in list(_workers):
                worker.stop()
            running[0].join(LOOK_AGAIN_S)
    except BaseException:  # a second Ctrl-C: a user who does not want to wait must not meet the abort either
        _exit_at_once()


def _exit_at_once() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(INTERRUPTED)


def _leave_behind() -> None:
    """In a forked child: forget the threads, which are not here."""
    left = list(_workers)
    _workers.clear()
    _threads.clear()
    for worker in left:
        worker.leave_behind()


atexit.register(_leave)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_behind)
