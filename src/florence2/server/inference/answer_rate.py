"""How fast requests are answered while some wait, measured, and how long one more will take by that.

Only what was answered counts: a request that ends with its time has freed its place, but shows nothing of how fast the models are. And only
the time counts in which some wait for a model: at other times fewer are answered because fewer come. Knows nothing of deadlines.
"""

from __future__ import annotations

import math
from collections.abc import Callable

WINDOW_S = 30.0
"""What happened longer ago than this counts for little: by a factor of e less."""
MIN_BUSY_S, MIN_ANSWERED = 2.0, 5.0
"""With less than this nothing is said."""


class AnswerRate:
    """The rate at which slots were answered lately, over the time in which others waited.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()
        self._answered = self._busy_s = 0.0

    def note(self, num_answered: int, *, is_waited: bool) -> None:
        """Note that so many slots were answered now, and whether any wait for a model since the last note."""
        now = self._clock()
        left = math.exp(-(now - self._at) / WINDOW_S)
        self._at = now
        self._answered *= left
        self._busy_s *= left
        if is_waited:
            self._answered += num_answered
            self._busy_s += WINDOW_S * (1 - left)

    def seconds_for(self, num_slots: int) -> float:
        """How long it takes until so many slots are answered; 0.0 as long as too little is known."""
        if self._busy_s < MIN_BUSY_S or self._answered < MIN_ANSWERED:
            return 0.0
        return num_slots * self._busy_s / self._answered
