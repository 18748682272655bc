"""Loading in a thread of its own, which can be stopped wherever it is.

PyTorch keeps helpers for every thread that has computed with it, and where there are more of them than cores they no longer wait for
each other's work but sleep: a decoder step then takes half as long again. Those of this thread end with it. A caller that stops waiting
(Ctrl-C, a server that ends) leaves no running thread behind. Knows nothing of what is loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from typing import Generic, TypeVar

from florence2.engine import lifetime
from florence2.errors import EngineClosed

Loaded = TypeVar("Loaded")


class _Stopped(BaseException):
    """Raised in a thread whose result is no longer wanted. No ``Exception``, so that nothing on the way takes it for one of its own."""


class Loading(Generic[Loaded]):
    """One piece of work in a thread of its own.

    Args:
        work: what is done.
    """

    def __init__(self, work: Callable[[], Loaded]) -> None:
        self._work = work
        self._outcome: Future[Loaded] = Future()
        self._lock = threading.Lock()
        self._ident: int | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="florence2-load", daemon=True)  # so that a leaving interpreter is not held
        lifetime.watch(self, self._thread)

    def result(self) -> Loaded:
        """Do the work and give back what comes of it. What ends the waiting, such as Ctrl-C, ends the work too.

        Raises:
            EngineClosed: it was stopped from elsewhere.
        """
        try:
            self._thread.start()
            wait([self._outcome])
            if not self._is_stopped:
                self._thread.join()
        except BaseException:
            self.stop()
            raise
        return self._outcome.result()

    def stop(self) -> None:
        """Fail waiting callers, and have the thread end at its next line of Python; does not wait for that."""
        with self._lock:
            if self._outcome.done():
                return
            self._is_stopped = True
            self._outcome.set_exception(EngineClosed("loading was stopped, because the program ends; load again"))
            if self._ident is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._ident), ctypes.py_object(_Stopped))

    def leave_behind(self) -> None:
        """Nothing: waiting callers are in the parent."""

    def _run(self) -> None:
        with contextlib.suppress(_Stopped):
            self._ident = threading.get_ident()
            if self._is_stopped:
                return
            try:
                settle = partial(self._outcome.set_result, self._work())
            except BaseException as error:
                settle = partial(self._outcome.set_exception, error)
            with self._lock:
                if not self._outcome.done():
                    settle()
