"""Limits of this process that the system holds: memory, and processor time for what it does next.

In: bytes or seconds. Out: nothing; where the system has no such limit, or does not let it be lowered, there is none. For processes that do
nothing else than decode what strangers have made. And the number of open files, which is raised instead. Knows nothing of what they are.
"""

from __future__ import annotations

import contextlib
import math
import time

MAX_FILES = 65_536
_CPU_GRACE_S = 1  # the system counts in whole seconds


def limit_memory(max_bytes: int) -> None:
    """Let memory beyond so many bytes be refused, and no memory be written to disk at a crash."""
    _limit("RLIMIT_AS", max_bytes)
    _limit("RLIMIT_CORE", 0)


def limit_time(max_seconds: float) -> None:
    """Let the system end this process after ``max_seconds`` more of processor time; the next call begins anew."""
    _limit("RLIMIT_CPU", math.ceil(time.process_time() + max_seconds) + _CPU_GRACE_S)


def raise_file_limit() -> int | None:
    """The number of files that the process may have open, raised as far as the system allows; None: there is no such limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return MAX_FILES if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):  # some systems have a lower bound of their own
        return soft
    return most


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
