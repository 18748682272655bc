"""Models whose loading has ended the engine's process, again and again: not tried for a while, as each try takes all others down with it.

In: how loadings have ended. Out: a refusal. Knows nothing of why the process has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from florence2.server.errors import ModelFailed

MAX_DEATHS = 3  # in a row; the process may have been killed for another reason
PAUSE_S = 300.0  # longer than a process has to live until it counts as well


class FatalLoads:
    """The models of one server.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deaths: dict[str, tuple[int, float]] = {}

    def check(self, model_id: str) -> None:
        """Refuse a model that is not to be tried now.

        Raises:
            ModelFailed: its last loadings have ended the process.
        """
        num_deaths, last_at = self._deaths.get(model_id, (0, 0.0))
        left_s = last_at + PAUSE_S - self._clock()
        if num_deaths >= MAX_DEATHS and left_s > 0:
            raise ModelFailed(
                f"the engine's process has ended {num_deaths} times in a row while it loaded {model_id}; "
                f"it is not tried again for {left_s:.0f} s"
            )

    def note_death(self, model_id: str) -> None:
        """Note that the process has ended while it loaded a model."""
        self._deaths[model_id] = (self._deaths.get(model_id, (0, 0.0))[0] + 1, self._clock())

    def note_loaded(self, model_id: str) -> None:
        """Note that a model was loaded."""
        self._deaths.pop(model_id, None)
