"""Answers as iterators of events, one to be iterated and one to be iterated with ``await``.

In: the generator of a call. Out: its events, to the last one or until it is closed, which ends the request. Knows nothing of what the
events are.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from florence2.client.errors import InferenceError
from florence2.client.lmm_events import LmmEvent

if TYPE_CHECKING:
    from typing import Self

T_co = TypeVar("T_co", covariant=True)


class LmmStream(Iterator[LmmEvent[T_co]], Generic[T_co]):
    """The events of a call, made by ``stream_lmm``. A context manager: leaving it closes it.

    Args:
        events: the events; closing the generator ends the request.
        interrupt: ends what the generator waits for in another thread.
    """

    def __init__(self, events: Generator[LmmEvent[T_co], None, None], interrupt: Callable[[], None]) -> None:
        self._events = events
        self._interrupt = interrupt
        self._reading = threading.Lock()
        self._is_closed = False

    def __next__(self) -> LmmEvent[T_co]:
        """The next event; waits for it.

        Raises:
            InferenceError: as ``infer_lmm``, and where the answer breaks off.
        """
        with self._reading:
            if self._is_closed:
                raise StopIteration
            try:
                event = next(self._events)
            except InferenceError:
                if self._is_closed:  # by another thread
                    raise StopIteration from None
                raise
            if self._is_closed:
                self._events.close()
                raise StopIteration
            return event

    def close(self) -> None:
        """End the request, so that the server stops with it; called in any thread, whether another one waits for an event or not."""
        self._is_closed = True
        if self._reading.acquire(blocking=False):
            try:
                self._events.close()
            finally:
                self._reading.release()
        else:
            self._interrupt()

    def __enter__(self) -> Self:
        """The stream itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        self.close()


class AwaitedLmmStream(AsyncIterator[LmmEvent[T_co]], Generic[T_co]):
    """The events of a call, made by ``stream_lmm_async``. An asynchronous context manager: leaving it closes it.

    Args:
        events: the events; closing the generator ends the request.
    """

    def __init__(self, events: AsyncGenerator[LmmEvent[T_co], None]) -> None:
        self._events = events
        self._reader: asyncio.Task[object] | None = None
        self._is_closed = False

    async def __anext__(self) -> LmmEvent[T_co]:
        """The next event; errors are those of ``LmmStream``."""
        if self._is_closed:
            raise StopAsyncIteration
        reader = self._reader = asyncio.current_task()
        try:
            return await anext(self._events)
        except asyncio.CancelledError:
            if self._is_closed and reader is not None and not reader.uncancel():  # by aclose, and by nobody else
                raise StopAsyncIteration from None
            raise
        finally:
            self._reader = None

    async def aclose(self) -> None:
        """End the request, so that the server stops with it; called in any task, whether another one waits for an event or not."""
        is_closed, self._is_closed = self._is_closed, True
        if self._reader is None:
            await self._events.aclose()
        elif not is_closed:
            self._reader.cancel()

    async def __aenter__(self) -> Self:
        """The stream itself."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        await self.aclose()
