"""How PyTorch shares the machine: how long its threads spin for each other, and how many there are.

How long is settled early: libgomp reads it when it is loaded, so ``import_torch`` runs before anything in this room imports PyTorch.
How many follows the load of other processes: a thread that waits for its processor holds up all others of its step, so ``FreeCores``
looks between two passes how many processors are idle. What the user has set stays. Knows nothing of models.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from florence2.cores import allowed_cores, busy_seconds, usable_cores
from florence2.openmp import CHOSEN_BY_USER, SPIN, SPIN_COUNT, THREADS

LOOK_S = 0.1  # the kernel counts in hundredths of a second


def import_torch() -> None:
    """Import PyTorch with threads that soon sleep; nothing where it is imported already or the user has chosen."""
    if "torch" in sys.modules or any(name in os.environ for name in CHOSEN_BY_USER):
        return
    os.environ[SPIN] = SPIN_COUNT
    try:
        import torch  # noqa: F401 - for its libgomp
    finally:  # programs that this one starts get their own setting
        del os.environ[SPIN]


def bound_threads() -> None:
    """Let PyTorch compute with no more threads than there are processors for, unless the user has said how many."""
    import torch

    if THREADS not in os.environ and torch.get_num_threads() > (cores := usable_cores()):
        torch.set_num_threads(cores)


class FreeCores:
    """Lets PyTorch compute with as many threads as there are idle processors, in the thread that calls ``fit``.

    Args:
        busy: seconds that the process's processors have been busy so far, with whatever; None where that can't be known.
        own: seconds that this process has computed so far.
        clock: seconds.
        num_cores: the processors.
    """

    def __init__(
        self,
        busy: Callable[[], float | None] = busy_seconds,
        own: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.perf_counter,
        num_cores: int | None = None,
    ) -> None:
        self._busy, self._own, self._clock = busy, own, clock
        self._num_cores = num_cores or allowed_cores()
        self._most: int | None = None
        self._last: tuple[float, float] | None = None

    def fit(self) -> None:
        """Set the number of threads by what has happened since the last look, unless that was a moment ago."""
        import torch

        now = self._clock()
        if THREADS in os.environ or (self._last is not None and now - self._last[0] < LOOK_S):
            return
        busy = self._busy()
        if busy is None:
            return
        if self._most is None:
            self._most = torch.get_num_threads()
        others = busy - self._own()
        if self._last is not None:
            share = max(0.0, others - self._last[1]) / (now - self._last[0])
            wanted = min(self._most, max(1, int(self._num_cores - share + 0.5)))
            if wanted != torch.get_num_threads():
                torch.set_num_threads(wanted)
        self._last = now, others
