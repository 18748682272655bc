"""Several streams as one: items as they come, from whichever stream has one.

In: functions that make async generators. Out: one async generator, or with ``LoopThread`` an iterator for callers without an event loop.
The first error ends all; so does closing. Knows nothing of what the items are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import aclosing, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

from florence2.background import in_background

T = TypeVar("T")
Make = Callable[[], AsyncGenerator[T, None]]

_LONGEST_CLOSE_S = 1.0


@dataclass(frozen=True)
class _End:
    """The end of one stream, and the error that it ended with."""

    error: BaseException | None = None


async def merged(makes: Sequence[Make[T]], limit: int) -> AsyncGenerator[T, None]:
    """The items of all generators as they come, at most ``limit`` of them open at once."""
    free = asyncio.Semaphore(limit)
    items: asyncio.Queue[T | _End] = asyncio.Queue()

    async def read(make: Make[T]) -> None:
        try:
            async with free, aclosing(make()) as stream:
                async for item in stream:
                    items.put_nowait(item)
        except Exception as error:
            items.put_nowait(_End(error))
        else:
            items.put_nowait(_End())

    tasks = [asyncio.ensure_future(read(make)) for make in makes]
    try:
        num_open = len(tasks)
        while num_open:
            item = await items.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                num_open -= 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class LoopThread(Iterator[T]):
    """The items of an async generator, which an event loop in a thread of its own drives. It has to be closed.

    Args:
        make: makes the generator, in that loop. It runs in a copy of the caller's context.
    """

    def __init__(self, make: Make[T]) -> None:
        self._items: SimpleQueue[T | _End] = SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._read(make))
        self._ran = in_background("florence2-client", self._run)

    def __next__(self) -> T:
        """The next item; waits for it."""
        item = self._items.get()
        if not isinstance(item, _End):
            return item
        self._items.put(_End())  # for whoever asks once more
        if item.error is not None:
            raise item.error
        raise StopIteration

    def close(self) -> None:
        """End the generator; called in any thread."""
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._task.cancel)
        wait([self._ran], _LONGEST_CLOSE_S)

    async def _read(self, make: Make[T]) -> None:
        error: BaseException | None = None
        try:
            async with aclosing(make()) as items:
                async for item in items:
                    self._items.put(item)
        except asyncio.CancelledError:  # closed
            pass
        except BaseException as raised:
            error = raised
        self._items.put(_End(error))

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._task)
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
