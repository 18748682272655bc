"""An answer as an iterator of events, which ends with the result.

In: a future and the queue that its events are put into. Out: the events as they come, then the ``Result``. An iterator that is closed or
dropped cancels its request. Knows nothing of search or text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType

from florence2.answer_events import Event
from florence2.results import Result

EventQueue = SimpleQueue[Event | Future[Result]]


class AnswerStream(Iterator[Event | Result]):
    """The events of one answer, made by ``Engine.stream``. A context manager: leaving it closes it.

    Args:
        future: the request's future.
        events: gets its events, and the future itself once it is done.
        check_may_wait: raises where waiting for the engine can't end.
    """

    def __init__(self, future: Future[Result], events: EventQueue, check_may_wait: Callable[[], None]) -> None:
        self._future = future
        self._events = events
        self._check_may_wait = check_may_wait
        self._has_ended = False
        self._is_closed = False
        future.add_done_callback(events.put)

    def __next__(self) -> Event | Result:
        """The next event; waits for it.

        Raises:
            EngineFailed: the answer can't be given, or the caller is the engine's own thread.
            CancelledError: the engine was closed with ``cancel=True``.
        """
        if self._has_ended or self._is_closed:
            raise StopIteration
        self._check_may_wait()
        try:
            event = self._events.get()
        except BaseException:
            self.close()
            raise
        if not isinstance(event, Future):
            return event
        has_ended, self._has_ended = self._has_ended, True
        self._events.put(event)  # for other threads that wait in the same stream; after it they see that it has ended
        if has_ended or self._is_closed:  # in another thread
            raise StopIteration
        return event.result()

    def close(self) -> None:
        """Cancel the request if its answer is not there yet; its rows are freed before the engine's next step."""
        self._is_closed = True
        self._future.cancel()

    def __enter__(self) -> AnswerStream:
        """The stream itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        """Close a stream without references."""
        self.close()
