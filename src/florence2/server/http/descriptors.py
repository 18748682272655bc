"""A limit on connections: as many as the process may have files open; beyond it, idle ones are closed.

Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

RESERVED_FILES = 256  # for models, images, the log, connections to the hub


class ConnectionBound:
    """Closes the connections that have been idle longest, as long as there are too many.

    Args:
        max_connections: as the settings say.
        max_files: as many as the process may have open; None: no such limit.
    """

    def __init__(self, max_connections: int, max_files: int | None) -> None:
        room = max_connections if max_files is None else max(max_files - RESERVED_FILES, max_files // 2)
        self._most = min(max_connections, room)

    def enforce(self, connections: Collection[Any]) -> None:
        """Close idle ones of these connections if there are too many.

        A connection is idle from the moment that it was made: its first request may lie unread in its socket. The latest are spared, so
        that of a crowd that comes at once those are kept that are about to ask.

        Args:
            connections: all of them, ``BoundedProtocol``.
        """
        excess = len(connections) - self._most
        if excess > 0:
            idle = [connection for connection in connections if _is_idle(connection)]
            for connection in sorted(idle, key=lambda connection: connection.idle_since)[:excess]:
                connection.transport.close()


def _is_idle(connection: Any) -> bool:
    """Whether a connection of uvicorn's has no request in flight."""
    return connection.cycle is None or connection.cycle.response_complete
