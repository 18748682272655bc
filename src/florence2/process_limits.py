"""Limits of this process that the system holds: memory, and processor time for what it does next.

In: bytes or seconds. Out: nothing; where the system has no such limit, or does not let it be lowered, there is none. For processes that do
nothing else than decode what strangers have made. Knows nothing of what that is.
"""

from __future__ import annotations

import contextlib
import math
import time

_CPU_GRACE_S = 1  # the system counts in whole seconds


def limit_memory(max_bytes: int) -> None:
    """Let memory beyond so many bytes be refused, and no memory be written to disk at a crash."""
    _limit("RLIMIT_AS", max_bytes)
    _limit("RLIMIT_CORE", 0)


def limit_time(max_seconds: float) -> None:
    """Let the system end this process after ``max_seconds`` more of processor time; the next call begins anew."""
    _limit("RLIMIT_CPU", math.ceil(time.process_time() + max_seconds) + _CPU_GRACE_S)


def _limit(name: str, most: int) -> None:
    """Lower one of the system's limits, where there is such a limit and it can be lowered.

    macOS refuses every bound of the address space that is below what the process has, which is hundreds of gigabytes. Whoever started
    the program may have set a lower one, which stays. The clock of who waits for this process holds everywhere.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        limit = getattr(resource, name)
        hard = resource.getrlimit(limit)[1]
        lower = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (lower, hard if name == "RLIMIT_CPU" else lower))  # that one is raised again for what comes next
