"""Continuous batching: one thread that decides who takes part in the next step.

Requests wait in the order of their arrival, and those of different accounts (``fair_key``) take turns. Between two steps those that fit
are encoded and join the running ones; a complete request leaves at once, a cancelled one at the next step. Requests come in
by ``submit`` from any thread, answers go out by each request's future. Knows nothing of images, prompts or search.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import torch

from florence2.engine import lifetime
from florence2.engine.batch import Batch, Model, Normalise, stacked
from florence2.engine.meter import clock
from florence2.engine.request import Request, step_failure
from florence2.engine.shortage import survive
from florence2.engine_stats import EngineStats
from florence2.errors import EngineClosed, EngineFailed
from florence2.request_options import MAX_BEAMS


class Scheduler:
    """Takes requests and answers them.

    Args:
        model: what encodes and decodes.
        max_rows: the most rows of a step; at least the most beams of a request.
        images_per_pass: the most images encoded between two steps while others run or wait.
        normalise: as in ``Batch``.
        before_pass: called in the engine's thread, before each pass.
        give_back: called there when memory has run out, to free what can be spared.
    """

    def __init__(
        self,
        model: Model,
        *,
        max_rows: int = 48,
        images_per_pass: int = 1,
        normalise: Normalise = stacked,
        before_pass: Callable[[], None] = lambda: None,
        give_back: Callable[[], None] = lambda: None,
    ) -> None:
        if max_rows < MAX_BEAMS:
            raise ValueError(f"max_rows must be at least {MAX_BEAMS}, the most beams of one request; got {max_rows}")
        self._max_rows = max_rows
        self._images_per_pass = images_per_pass
        self._before_pass = before_pass
        self._give_back = give_back
        self._batch = Batch(model, max_rows, normalise, give_back)
        self._crowd = 0  # so many took part when memory last ran out; nobody enters beside as many
        self._waiting: deque[Request[Any]] = deque()
        self._joining: list[Request[Any]] = []  # taken from the queue, and not yet part of the batch
        self._changed = threading.Condition()
        self._is_closed = False
        self._is_cancelling = False
        self._thread = threading.Thread(target=self._work, name="florence2-engine", daemon=True)
        self._process = os.getpid()
        lifetime.watch(self, self._thread)
        self._thread.start()

    def check_process(self) -> None:
        """Refuse to be used where the thread is not.

        Raises:
            EngineClosed: this process is a fork of the one that the engine was loaded in.
        """
        if not self._is_here:
            raise self._elsewhere()

    def check_may_wait(self) -> None:
        """Refuse to wait for an answer where none can come.

        Raises:
            EngineFailed: the caller runs in the engine's thread, which can't wait for itself.
            EngineClosed: as in ``check_process``.
        """
        self.check_process()
        if self._is_own_thread:
            raise EngineFailed("run waits for the engine and can't be called in its own thread (a future's callback); use submit there")

    def submit(self, requests: Sequence[Request[Any]]) -> None:
        """Queue requests, next to each other.

        Raises:
            EngineClosed: the engine takes no more requests, or lives in another process.
        """
        self.check_process()
        queued_at = clock()
        for request in requests:
            request.stopwatch.queued_at = queued_at
        with self._changed:
            if self._is_closed:
                raise EngineClosed("the engine is closed; load a new one")
            self._waiting.extend(requests)
            self._changed.notify_all()

    def close(self, *, cancel: bool = False, wait: bool = True, timeout_s: float | None = None) -> None:
        """Take no more requests, answer (or cancel) those that are there, and end the thread. Nothing, in a fork: it has no thread.

        Args:
            cancel: cancel waiting and running requests rather than answer them.
            wait: return only when the thread has ended.
            timeout_s: the longest to wait; None for as long as it takes.
        """
        if not self._is_here:  # the lock may be held by a thread that is not here either
            return
        with self._changed:
            self._is_closed = True
            self._is_cancelling = self._is_cancelling or cancel
            self._changed.notify_all()
        if wait and not self._is_own_thread:
            self._thread.join(timeout_s)

    def stop(self) -> None:
        """Cancel everything and have the thread end, without waiting for it."""
        self.close(cancel=True, wait=False)

    def leave_behind(self) -> None:
        """In a forked child: fail the requests from before the fork, which are answered in the parent alone."""
        for request in (*self._batch.requests, *self._joining, *self._waiting):
            request.future.leave_behind(self._elsewhere())

    def stats(self) -> EngineStats:
        """What it is doing; what it knows nothing of is left 0."""
        with self._changed:
            waiting = [*self._joining, *self._waiting]
        running, meter = self._batch.requests, self._batch.meter
        pass_age_s = meter.pass_age_s
        images = {id(request.image): request.image for request in waiting}
        return EngineStats(
            num_running=len(running),
            num_waiting=len(waiting),
            num_rows=sum(request.search.num_rows for request in running),
            max_rows=self._max_rows,
            waiting_bytes=sum(image.num_bytes for image in images.values() if image.features is None),
            memory_bytes=self._batch.cache_bytes,
            pass_age_s=pass_age_s,
            num_steps=meter.num_steps,
            busy_s=meter.busy_s + pass_age_s,
        )

    @property
    def _is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    @property
    def _is_here(self) -> bool:
        return os.getpid() == self._process

    def _elsewhere(self) -> EngineClosed:
        return EngineClosed(
            f"the engine was loaded in another process ({self._process}) and can't be used in this one ({os.getpid()}), a fork of it: "
            "load it here, after the fork"
        )

    def _work(self) -> None:
        """The thread: passes as long as there is work."""
        failure: BaseException | None = None
        try:
            with torch.inference_mode():
                while self._wait_for_work():
                    self._pass()
        except BaseException as error:
            failure = error
            raise
        finally:
            self._abandon(failure)

    def _pass(self) -> None:
        """Admit, take one step, let go. A pass that breaks fails those who take part; the next one begins afresh.

        Everything raised is caught: in this thread neither SystemExit nor KeyboardInterrupt comes from the user.
        """
        self._batch.meter.begin_pass()
        try:
            self._before_pass()
            self._admit()
            self._batch.step()
            self._take_back()
        except BaseException as error:
            self._take_back()
            self._fail_joining(error)
            self._batch.fail(error)
        finally:
            self._batch.meter.end_pass()

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; False when there never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._batch.requests or self._is_closed)
            return not self._is_cancelling and bool(self._waiting or self._batch.requests)

    def _admit(self) -> None:
        """Admit the first waiting requests, as far as there is room."""
        try:
            self._take()
            if self._joining:
                survive(lambda: self._batch.enter(self._joining), self._halve)
        except BaseException as error:  # the running ones have no part in it, or have failed already
            self._fail_joining(error)
        self._joining = []

    def _halve(self, error: BaseException) -> None:
        """Send the later half of those who join back to the queue: there was too little memory for all of them."""
        num_staying = len(self._joining) - len(self._joining) // 2
        self._batch.returned += self._joining[num_staying:]
        del self._joining[num_staying:]
        self._give_back()

    def _take_back(self) -> None:
        """Queue again, before all others, those who had to leave before their first step."""
        returned, self._batch.returned = self._batch.returned, []
        if returned:
            with self._changed:
                self._waiting.extendleft(reversed(returned))
            self._crowd = len(self._batch.requests)

    def _fail_joining(self, error: BaseException) -> None:
        for request in self._joining:
            request.fail(step_failure(error))
        self._joining = []

    def _take(self) -> None:
        """Take from the queue, in its order, what fits into the rows and the images of one pass."""
        if len(self._batch.requests) < self._crowd or not self._batch.requests:
            self._crowd = 0
        if self._crowd:
            return
        free_rows = self._max_rows - self._batch.num_rows
        new_images: set[int] = set()
        with self._changed:
            self._take_turns()
            while self._waiting:
                request = self._waiting.popleft()
                self._joining.append(request)  # whatever is raised from here on, it is in one of the two
                if request.is_cancelled:
                    self._joining.pop().drop()
                    continue
                if request.image.features is None:
                    new_images.add(id(request.image))
                free_rows -= request.search.num_rows
                if free_rows < 0 or len(new_images) > self._images_per_pass:
                    self._waiting.appendleft(self._joining.pop())
                    break

    def _take_turns(self) -> None:
        """Order the queue by turns: the first request of each account, then the second of each, and so on.

        Running requests count as earlier turns, so that no account fills the batch again and again while others wait.
        """
        if len({request.fair_key for request in self._waiting}) < 2:
            return
        rows: Counter[str] = Counter()
        for request in self._batch.requests:
            rows[request.fair_key] += request.search.num_rows
        turns = []
        for request in self._waiting:
            turns.append((rows[request.fair_key], request))
            rows[request.fair_key] += request.search.num_rows
        self._waiting = deque(request for _, request in sorted(turns, key=lambda turn: turn[0]))

    def _abandon(self, failure: BaseException | None) -> None:
        """Settle every future, however the loop has ended."""
        with self._changed:
            self._is_closed = True
            left = [*self._batch.requests, *self._joining, *self._waiting]
            self._waiting.clear()
        for request in left:
            if failure is None:
                request.drop()
            else:
                request.fail(step_failure(failure))
