"""The future that a caller holds until its answer is there.

A ``concurrent.futures.Future`` with two promises more: a callback that raises, whatever it raises, keeps neither other callbacks from
being called nor the engine from going on; and a forked child, which never gets the answer, gets an error.
Knows nothing of requests.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Answer = TypeVar("Answer")

_log = logging.getLogger("florence2")


class PendingAnswer(Future[Answer]):
    """The future of one request."""

    def add_done_callback(self, fn: Callable[[Future[Answer]], Any]) -> None:
        """Call ``fn`` with the future once it is done; what ``fn`` raises is logged and ends nothing but ``fn``."""

        def guarded(done: Future[Answer]) -> None:
            try:
                fn(done)
            except BaseException as error:
                # The base class logs every Exception. The caller's main thread may be interrupted or leave; the engine's must neither.
                if isinstance(error, Exception) or threading.current_thread() is threading.main_thread():
                    raise
                _log.exception("a future's callback raised; the engine goes on")

        super().add_done_callback(guarded)

    def leave_behind(self, error: BaseException) -> None:
        """In a forked child: fail with ``error``. Waiting callers are in the parent, and locks may be held by threads that are not here."""
        self._condition = threading.Condition()
        self._done_callbacks = []
        self._waiters = []
        if not self.done():
            self.set_exception(error)
