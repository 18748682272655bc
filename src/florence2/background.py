"""Work in a thread of its own that nobody waits for when the process ends: what hangs there holds nobody up.

In: a name and work. Out: a future of what comes of it, or the value itself in asyncio. Knows nothing of what the work is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Value = TypeVar("Value")


def in_background(name: str, work: Callable[[], Value]) -> Future[Value]:
    """What the work gives, or the exception that ends it, done in a new thread of this name.

    What the work holds is let go before its outcome is known: an engine that is freed in a thread while the process ends would abort it.
    """
    outcome: Future[Value] = Future()
    outcome.set_running_or_notify_cancel()  # from here on the thread alone settles it
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
