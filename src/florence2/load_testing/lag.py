"""How late the generator itself is: a task that wants to run every few milliseconds, and notes when it could.

In: the clock of the system. Out: delays in seconds. What delays this task delays the sending of requests and the reading of answers, too.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

EVERY_S = 0.02


@asynccontextmanager
async def watched_lag() -> AsyncIterator[array[float]]:
    """The delays of the event loop while the block runs, one for each look."""
    delays = array("d")

    async def look() -> None:
        while True:
            wanted_s = time.perf_counter() + EVERY_S
            await asyncio.sleep(EVERY_S)
            delays.append(time.perf_counter() - wanted_s)

    watch = asyncio.create_task(look())
    try:
        yield delays
    finally:
        watch.cancel()
