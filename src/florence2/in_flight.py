"""Items on their way through an engine: some are read ahead, some are in flight, and they come out in order.

In: items, a function that reads one of them, and a function that submits one and returns its futures, whether to an engine in this process
or to a server behind a URL. Out: each item exactly once, with its futures done. Knows nothing of images, prompts and engines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Any, TypeVar

from florence2.background import in_background

Item = TypeVar("Item")
Read = TypeVar("Read")
Futures = TypeVar("Futures", bound=Sequence[Future[Any]])

NUM_READ_AHEAD = 4
NUM_IN_FLIGHT = 8


def read_ahead(items: Iterable[Item], read: Callable[[Item], Read], *, num_ahead: int = NUM_READ_AHEAD) -> Iterator[Future[Read]]:
    """The future of ``read(item)`` for each item, in order; the items after it are read in the meantime.

    They are read in threads that end with the process: an address that does not answer delays neither other items nor Ctrl-C.

    Args:
        items: what to read; an error of the iterator is raised here.
        read: runs in a thread of its own; its exception is that of the future.
        num_ahead: how many items are read, or wait as read, behind the last one that was taken.
    """
    started: deque[Future[Read]] = deque()
    for item in items:
        started.append(in_background("florence2-read", partial(read, item)))
        if len(started) > num_ahead:
            yield started.popleft()
    while started:
        yield started.popleft()


def in_flight(
    readings: Iterable[Future[Item]], submit: Callable[[Item], Futures], *, num_items: int = NUM_IN_FLIGHT
) -> Generator[tuple[Item, Futures], None, None]:
    """Each item with its futures, in order, as soon as all of them are done; the items after it are in flight in the meantime.

    An item that is not read yet does not delay those before it. Closing the iterator, or an error that ends it, cancels all futures that
    are not done.

    Args:
        readings: a future for each item, such as those of ``read_ahead``; an exception of one is raised here.
        submit: starts the work on one item, without waiting for it. Called in the caller's thread, in the order of the items; its exception
            is raised here.
        num_items: the most items in flight, at least 1.
    """
    window: deque[tuple[Item, Futures]] = deque()
    try:
        for reading in readings:
            while window and _is_oldest_next(window[0][1], reading, is_full=len(window) >= num_items):
                yield window.popleft()
            item = reading.result()
            window.append((item, submit(item)))
        while window:
            wait(window[0][1])
            yield window.popleft()
    finally:
        for _, futures in window:
            for future in futures:
                future.cancel()


def _is_oldest_next(oldest: Sequence[Future[Any]], reading: Future[Any], *, is_full: bool) -> bool:
    """Whether the oldest item in flight is done before the next one is read; waits for whichever comes first."""
    if is_full:
        wait(oldest)
        return True
    waiting = {future for future in oldest if not future.done()}
    while waiting and not reading.done():
        waiting = wait([reading, *waiting], return_when=FIRST_COMPLETED).not_done - {reading}
    return not reading.done()
