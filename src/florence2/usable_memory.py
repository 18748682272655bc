"""How much memory this process may use: the machine's, or less where a container has a limit. Knows nothing of who uses it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_memory(root: Path = Path("/")) -> int | None:
    """The memory that this process may use, in bytes: the machine's or the smallest limit of its control groups; None if unknown.

    Args:
        root: where ``/proc`` and ``/sys`` are; another folder in tests.
    """
    amounts = [*_limits(root), *_machine()]
    return min(amounts, default=None)


def _machine() -> Iterator[int]:
    """The memory of the machine, where the system says it."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
        pages = os.sysconf("SC_PHYS_PAGES")
        if pages > 0:
            yield pages * os.sysconf("SC_PAGE_SIZE")


def _limits(root: Path) -> Iterator[int]:
    """The limits of the control groups that the process lies in, of either version.

    Source: cgroups(7), and the kernel's documents on the memory controller.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # another system
        return
    for group in groups:
        number, _, rest = group.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for part in (inside, *inside.parents):
            try:
                yield int((top / part / name).read_text(encoding="ascii"))
            except (OSError, ValueError):  # no such file, or no limit ("max")
                continue
