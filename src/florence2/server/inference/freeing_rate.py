"""How fast room is freed, measured, and how long it takes until so much of it will be.

In: how much is taken, each time that changes. Out: seconds. What those who were refused were promised counts as taken before the next one
that is refused, so that not all of them come back in the same second. Knows nothing of what the room is for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

WINDOW_S = 30.0
"""What happened longer ago than this counts for little: by a factor of e less."""
MIN_S, MAX_S = 1, 60


class FreeingRate:
    """The rate at which room was freed lately, over the time in which any was taken.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()
        self._freed = self._busy_s = self._promised = 0.0

    def note(self, before: float, after: float) -> None:
        """Note that so much was taken until now, and so much is from now on."""
        self._age(is_busy=before > 0)
        freed = max(0.0, before - after)
        self._freed += freed
        self._promised = max(0.0, self._promised - freed) if after else 0.0

    def seconds_until(self, amount: float, taken: float, share: float = 1.0) -> int:
        """How many whole seconds it takes until so much is freed; 1 as long as nothing is known, 60 at most.

        Args:
            amount: how much has to be freed.
            taken: how much is taken now.
            share: which part of what is freed counts.
        """
        self._age(is_busy=taken > 0)
        if not self._freed:
            return bounded(self._busy_s)  # nothing was freed in this time, so that it takes as long at least
        return bounded(amount / (share * self._freed / self._busy_s))

    def promise(self, amount: float, taken: float) -> int:
        """The same for one who is refused now and comes back then, behind all who were promised room before."""
        seconds = self.seconds_until(self._promised + amount, taken)
        if seconds < MAX_S:
            self._promised += amount
        return seconds

    def _age(self, *, is_busy: bool) -> None:
        now = self._clock()
        left = math.exp(-(now - self._at) / WINDOW_S)
        self._at = now
        self._freed *= left
        self._busy_s = self._busy_s * left + (WINDOW_S * (1 - left) if is_busy else 0.0)


def bounded(seconds: float) -> int:
    """The seconds as ``Retry-After`` says them: whole ones, from 1 to 60."""
    return min(MAX_S, max(MIN_S, math.ceil(seconds)))
