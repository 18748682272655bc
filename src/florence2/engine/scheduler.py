"""Continuous batching: one thread that decides who takes part in the next step.

Requests wait in the order of their arrival. Between two steps those that fit are encoded and join the running ones;
whoever is complete leaves at once, whoever is cancelled leaves at the next step. Requests come in by ``submit`` from any
thread, answers go out by each request's future. Knows nothing of images, prompts or search.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from florence2.engine.batch import Batch, Model
from florence2.engine.request import MAX_BEAMS, Request, step_failure
from florence2.errors import EngineClosed

EXIT_PATIENCE_S = 10.0  # how long a leaving interpreter waits for the step that runs


class Scheduler:
    """Takes requests and answers them.

    Args:
        model: what encodes and decodes.
        max_rows: the most rows of a step; at least the most beams of a request.
        images_per_pass: the most images encoded between two steps while others run or wait.
    """

    def __init__(self, model: Model, *, max_rows: int = 48, images_per_pass: int = 1) -> None:
        if max_rows < MAX_BEAMS:
            raise ValueError(f"max_rows must be at least {MAX_BEAMS}, the most beams of one request; got {max_rows}")
        self._max_rows = max_rows
        self._images_per_pass = images_per_pass
        self._batch = Batch(model, max_rows)
        self._waiting: deque[Request[Any]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._is_cancelling = False
        self._thread = threading.Thread(target=self._work, name="florence2-engine", daemon=True)
        self._thread.start()
        _schedulers.add(self)
        _threads.add(self._thread)

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller runs in the engine's thread, which can't wait for itself."""
        return threading.current_thread() is self._thread

    def submit(self, requests: Sequence[Request[Any]]) -> None:
        """Queue requests, next to each other.

        Raises:
            EngineClosed: the engine takes no more requests.
        """
        with self._changed:
            if self._is_closed:
                raise EngineClosed("the engine is closed; load a new one")
            self._waiting.extend(requests)
            self._changed.notify_all()

    def close(self, *, cancel: bool = False, wait: bool = True, timeout_s: float | None = None) -> None:
        """Take no more requests, answer (or cancel) those that are there, and end the thread.

        Args:
            cancel: cancel waiting and running requests rather than answer them.
            wait: return only when the thread has ended.
            timeout_s: the longest to wait; None for as long as it takes.
        """
        with self._changed:
            self._is_closed = True
            self._is_cancelling = self._is_cancelling or cancel
            self._changed.notify_all()
        if wait and not self.is_own_thread:
            self._thread.join(timeout_s)

    def _work(self) -> None:
        """The thread: passes as long as there is work."""
        try:
            with torch.inference_mode():
                while self._wait_for_work():
                    self._pass()
        finally:
            self._abandon()

    def _pass(self) -> None:
        """Who joins, one step, who leaves. A pass that breaks fails those who take part; the next one begins afresh."""
        try:
            self._admit()
            self._batch.step()
        except Exception as error:
            self._batch.fail(error)

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; False when there never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._batch.requests or self._is_closed)
            return not self._is_cancelling and bool(self._waiting or self._batch.requests)

    def _admit(self) -> None:
        """Let the first of those who wait join, as far as there is room."""
        requests = self._next_requests()
        if not requests:
            return
        try:
            encoded = self._batch.encode(requests)
        except Exception as error:  # the running ones have no part in it
            for request in requests:
                request.fail(step_failure(error))
            return
        self._batch.admit(requests, encoded)

    def _next_requests(self) -> list[Request[Any]]:
        """Take from the queue, in its order, what fits into the rows and the images of one pass."""
        free_rows = self._max_rows - self._batch.num_rows
        new_images: set[int] = set()
        taken: list[Request[Any]] = []
        with self._changed:
            while self._waiting:
                request = self._waiting[0]
                if request.is_cancelled:
                    self._waiting.popleft().drop()
                    continue
                if request.image.features is None:
                    new_images.add(id(request.image))
                free_rows -= request.search.num_rows
                if free_rows < 0 or len(new_images) > self._images_per_pass:
                    break
                taken.append(self._waiting.popleft())
        return taken

    def _abandon(self) -> None:
        """Leave nobody waiting, however the loop came to its end."""
        with self._changed:
            self._is_closed = True
            left = [*self._batch.requests, *self._waiting]
            self._waiting.clear()
        for request in left:
            request.drop()


# Weakly, so that whoever is done with is freed; a thread lives until it has freed what it worked on.
_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


@atexit.register
def _leave() -> None:
    """End all threads before the interpreter does: one inside PyTorch, if only to free a model, must not outlive its innards."""
    for scheduler in list(_schedulers):
        scheduler.close(cancel=True, wait=False)
    end = time.monotonic() + EXIT_PATIENCE_S
    for thread in list(_threads):
        thread.join(max(0.0, end - time.monotonic()))
