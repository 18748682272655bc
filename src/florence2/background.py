"""Work in a daemon thread of its own, which does not delay the end of the process.

In: a name and a function. Out: a future of its value, or the value itself in asyncio. Knows nothing of the work.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Value = TypeVar("Value")


def in_background(name: str, work: Callable[[], Value]) -> Future[Value]:
    """The future of ``work()``, which runs in a new thread of this name.

    The thread drops its reference to ``work`` before the outcome is set: an engine that is freed in a thread while the process ends would
    abort the process.
    """
    outcome: Future[Value] = Future()
    outcome.set_running_or_notify_cancel()  # from here on it can't be cancelled
    held = [work]

    def run() -> None:
        try:
            value = held.pop()()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(value)

    threading.Thread(target=run, name=name, daemon=True).start()
    return outcome


async def in_thread(name: str, work: Callable[[], Value]) -> Value:
    """What the work gives, awaited; done in a new thread as by ``in_background``."""
    outcome = in_background(name, work)
    del work  # a frame that still waits would hold it
    return await asyncio.wrap_future(outcome)
