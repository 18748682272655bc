"""How long loading each model takes: what it took last time, or has taken so far. Knows nothing of how models are loaded."""

from __future__ import annotations

import time
from collections.abc import Callable

from florence2.server.inference.freeing_rate import bounded


class LoadTimes:
    """The times of one server's models.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}

    def begin(self, model_id: str) -> None:
        """Note that loading begins."""
        self._began[model_id] = self._clock()

    def end(self, model_id: str) -> None:
        """Note that the model is loaded."""
        self._took[model_id] = self._clock() - self._began.pop(model_id)

    def seconds_left(self, model_id: str) -> int:
        """In how many whole seconds a model that is being loaded should be there, from 1 to 60.

        One that was loaded before takes as long as it did then; of one that was not, or that takes longer, half of it is done.
        """
        so_far = self._clock() - self._began.get(model_id, self._clock())
        left = self._took.get(model_id, 0.0) - so_far
        return bounded(left if left > 0 else so_far)
