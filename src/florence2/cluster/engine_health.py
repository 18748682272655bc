"""Whether a replica is of use: its engine comes back by itself, or the replica has to go.

In: the process of the engines and the models in it. Out: an error once they have been away for too long, for Ray Serve to replace the
replica. A process that ends, or is killed by a request, is started again within the replica, which is much sooner there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

LOST_S = 120.0
"""So long an engine may take to come back: to start its process, and to load the models of the settings from this machine's disk."""


class ReplicaUnhealthy(RuntimeError):
    """A replica has no engine and does not get one."""


class _Process(Protocol):
    @property
    def is_running(self) -> bool: ...

    @property
    def last_failure(self) -> str: ...


class _Models(Protocol):
    @property
    def is_preloaded(self) -> bool: ...


class EngineHealth:
    """Looks at an engine; to be made when it is there.

    Args:
        process: the process of the engines.
        models: the models in it.
        clock: seconds, as ``time.monotonic``.
    """

    def __init__(self, process: _Process, models: _Models, clock: Callable[[], float] = time.monotonic) -> None:
        self._process, self._models, self._clock = process, models, clock
        self._well_at = clock()

    def look(self) -> None:
        """Note whether there is an engine now; to be called often: one that is back only for moments is not back."""
        if self._process.is_running and self._models.is_preloaded:
            self._well_at = self._clock()

    def check(self) -> None:
        """Raise ``ReplicaUnhealthy`` if there has been no engine for too long."""
        self.look()
        away_s = self._clock() - self._well_at
        if away_s > LOST_S:
            raise ReplicaUnhealthy(
                f"this replica has had no engine for {away_s:.0f} s: {self._process.last_failure or 'it is not started'}"
            )
