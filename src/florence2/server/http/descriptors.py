"""A limit on connections: as many as the process may have files open; beyond it, idle ones are closed.

Knows nothing of requests.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

RESERVED_FILES = 256  # for models, images, the log, connections to the hub
LOOK_S = 1.0


class ConnectionBound:
    """Closes the connections that have been idle longest, as long as there are too many.

    Args:
        max_connections: as the settings say.
        max_files: as many as the process may have open; None: no such limit.
    """

    def __init__(self, max_connections: int, max_files: int | None) -> None:
        room = max_connections if max_files is None else max(max_files - RESERVED_FILES, max_files // 2)
        self._most = min(max_connections, room)
        self._idle_since: dict[Any, float] = {}
        self._looks_at = 0.0

    def enforce(self, connections: Collection[Any]) -> None:
        """Close idle ones of these connections if there are too many; called often."""
        now = time.monotonic()
        excess = len(connections) - self._most
        if excess <= 0 and now < self._looks_at:
            return
        self._looks_at = now + LOOK_S
        self._idle_since = {one: self._idle_since.get(one, now) for one in connections if _is_idle(one)}
        if excess > 0:
            for connection in sorted(self._idle_since, key=self._idle_since.__getitem__)[:excess]:
                connection.transport.close()


def _is_idle(connection: Any) -> bool:
    """Whether a connection of uvicorn's has no request in flight."""
    return connection.cycle is None or connection.cycle.response_complete
