"""One life of the engine's process, seen from the server: calls go out, and what comes back finds its caller.

Callers' threads send; one thread reads. Cancellations are sent by a thread of their own, because the event loop must never wait for a child
that does not read. When the process ends, everything that waits fails at once. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from florence2.answer_events import OnEvent
from florence2.engine_process.messages import Answered, Beat, Cancel, Load, LoadOptions, Logged, ModelFacts, Ready, Reported, Returned
from florence2.engine_stats import EngineStats
from florence2.errors import EngineDied, EngineFailed, Florence2Error
from florence2.results import Result

logger = logging.getLogger(__name__)


class RemoteAnswer(Future[Result]):
    """The future of one prompt. Cancelling it takes the prompt out of the engine, without waiting for that.

    Args:
        cancel_there: tells the engine; may be called in any thread.
    """

    def __init__(self, cancel_there: Callable[[], None]) -> None:
        super().__init__()
        self._cancel_there = cancel_there
        self._lock = threading.Lock()
        self._is_settled = False

    def cancel(self) -> bool:
        """Cancel here and in the engine; False where the outcome is there already."""
        if not super().cancel():
            return False
        if self._is_first():
            self.set_running_or_notify_cancel()  # wakes those that wait for several futures
            self._cancel_there()
        return True

    def settle(self, outcome: Result | BaseException | None) -> None:
        """Set the outcome; None: the engine has cancelled it."""
        if not self._is_first():
            return
        if outcome is None:
            super().cancel()
        if not self.set_running_or_notify_cancel():
            return
        if isinstance(outcome, BaseException):
            self.set_exception(outcome)
        else:
            self.set_result(outcome)  # type: ignore[arg-type]

    def _is_first(self) -> bool:
        """True exactly once: for who settles the future."""
        with self._lock:
            was_settled, self._is_settled = self._is_settled, True
        return not was_settled


class _Asked:
    """The prompts of one ``Submit`` that are not answered yet."""

    def __init__(self, answers: Sequence[RemoteAnswer], on_event: OnEvent | None) -> None:
        self.answers = answers
        self.on_event = on_event
        self.num_left = len(answers)


class Link:
    """The connection with one child.

    Args:
        end: the server's end of a pair of sockets.
        on_ready: called in the reading thread when the child takes calls.

    Attributes:
        is_ready: the child takes calls.
        beat_at: when it was last heard of, by the monotonic clock.
        stats: what its models were doing then, by their numbers.
        num_loading: how many models are being loaded.
        has_ended: set once the connection is closed.
    """

    def __init__(self, end: socket.socket, on_ready: Callable[[], None]) -> None:
        self.is_ready = False
        self.beat_at = time.monotonic()
        self.stats: dict[int, EngineStats] = {}
        self.num_loading = 0
        self.has_ended = threading.Event()
        self._on_ready = on_ready
        self._end_of_pair = end
        self._connection = Connection(os.dup(end.fileno()))
        self._numbers = itertools.count(1)
        self._calls: dict[int, Future[Any]] = {}
        self._asked: dict[int, _Asked] = {}
        self._lock = threading.Lock()  # for the dictionaries
        self._sending = threading.Lock()
        self._later: SimpleQueue[Cancel | None] = SimpleQueue()
        for work in (self._read, self._send_later):
            threading.Thread(target=work, name="florence2-engine-link", daemon=True).start()

    def call(self, make: Callable[[int], Any]) -> Future[Any]:
        """The future of a call's value.

        Args:
            make: makes the message of the call's number.

        Raises:
            EngineDied: the process has ended.
        """
        return self._call(next(self._numbers), make)

    def load(self, options: LoadOptions) -> tuple[ModelFacts, int]:
        """What is known of a model, and its number, once it is loaded.

        Raises:
            EngineDied: the process has ended.
            Florence2Error: what loading raises.
        """
        with self._lock:
            self.num_loading += 1
        try:
            return self.call(lambda number: Load(number, options)).result()
        finally:
            with self._lock:
                self.num_loading -= 1

    def submit(self, make: Callable[[int], Any], num_prompts: int, on_event: OnEvent | None) -> list[Future[Result]]:
        """The futures of prompts, once they are queued there.

        Raises:
            EngineDied: the process has ended.
            Florence2Error: what the engine has refused them for.
        """
        number = next(self._numbers)
        answers = [RemoteAnswer(lambda index=index: self._later.put(Cancel(number, index))) for index in range(num_prompts)]
        with self._lock:
            self._asked[number] = _Asked(answers, on_event)
        try:
            self._call(number, make).result()
        except BaseException:
            with self._lock:
                self._asked.pop(number, None)
            raise
        return list(answers)

    def close(self) -> None:
        """Close the connection, on which the child ends."""
        with contextlib.suppress(OSError):  # closed already
            self._end_of_pair.shutdown(socket.SHUT_RDWR)

    def _call(self, number: int, make: Callable[[int], Any]) -> Future[Any]:
        outcome: Future[Any] = Future()
        with self._lock:
            if self.has_ended.is_set():
                raise EngineDied()
            self._calls[number] = outcome
        try:
            with self._sending:
                self._connection.send(make(number))
        except OSError:  # the reading thread fails the call
            pass
        except BaseException:
            with self._lock:
                self._calls.pop(number, None)
            raise
        return outcome

    def _send_later(self) -> None:
        """The thread that sends cancellations."""
        while (message := self._later.get()) is not None:
            try:
                with self._sending:
                    self._connection.send(message)
            except OSError:
                return

    def _read(self) -> None:
        """The thread that reads, until the connection is closed."""
        try:
            while True:
                for message in self._connection.recv():
                    self._take(message)
        except (OSError, EOFError):
            pass
        except Exception:  # what can't be read can't be gone on with
            logger.exception("the engine's process says what can't be read")
        finally:
            self._end()

    def _take(self, message: Any) -> None:
        """One message of the child."""
        if isinstance(message, Answered):
            self._settle(message)
        elif isinstance(message, Reported):
            self._report(message)
        elif isinstance(message, Returned):
            with self._lock:
                call = self._calls.pop(message.call, None)
            if call is not None and message.failure is None:
                call.set_result(message.value)
            elif call is not None and message.failure is not None:
                call.set_exception(message.failure.exception())
        elif isinstance(message, Beat):
            self.beat_at, self.stats = time.monotonic(), message.stats
        elif isinstance(message, Logged):
            logging.getLogger(message.logger).log(message.level, "%s", message.text)
        elif isinstance(message, Ready):
            self.beat_at, self.is_ready = time.monotonic(), True
            self._on_ready()

    def _settle(self, message: Answered) -> None:
        """Give one prompt its outcome."""
        with self._lock:
            asked = self._asked.get(message.call)
            if asked is None:
                return
            asked.num_left -= 1
            if not asked.num_left:
                del self._asked[message.call]
        asked.answers[message.index].settle(message.result if message.failure is None else message.failure.exception())

    def _report(self, message: Reported) -> None:
        """Pass an event on; an error there fails its own prompt."""
        asked = self._asked.get(message.call)
        if asked is None or asked.on_event is None or (answer := asked.answers[message.event.index]).done():
            return
        try:
            asked.on_event(message.event)
        except BaseException as error:
            failure = EngineFailed(f"the callback on_event raised {type(error).__name__}: {error}")
            failure.__cause__ = error
            answer.settle(failure)
            self._later.put(Cancel(message.call, message.event.index))

    def _end(self) -> None:
        """Fail everything that waits."""
        with self._lock:
            self.has_ended.set()
            calls, asked = list(self._calls.values()), list(self._asked.values())
            self._calls, self._asked = {}, {}
        self._later.put(None)
        self._end_of_pair.close()
        with self._sending:
            self._connection.close()
        for one in asked:
            for answer in one.answers:
                answer.settle(_died())
        for call in calls:
            call.set_exception(_died())


def _died() -> Florence2Error:
    """The error for who waits; one for each, as each gets a traceback of its own."""
    return EngineDied()
