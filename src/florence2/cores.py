"""How many processors this process may compute on: its affinity, and the quotas of its control groups.

In: what the kernel shows under ``/proc/self`` and the mounted control groups, of version 1 and 2, each nested as deeply as may be. Out:
a number. A container of two processors on a host of 64 has 64 in ``os.cpu_count()``. Knows nothing of models.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(root: Path = Path("/")) -> int:
    """The processors that may be used at once, at least 1; a part of one counts as one.

    Args:
        root: where ``proc`` and the control groups are found.
    """
    allowed = allowed_cores()
    quota = cpu_quota(root)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def allowed_cores() -> int:
    """The processors that this process may run on, quotas aside: those of ``busy_seconds``."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The smallest quota of the process's control groups and of all that they lie in, in processors; None where there is none.

    Args:
        root: as in ``usable_cores``.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # another system
        return None
    quotas = [_quota(folder) for mount in mounts for folder in _folders(mount, groups, root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def busy_seconds(root: Path = Path("/")) -> float | None:
    """How long the processors that this process may run on have been busy since the machine started, together; None where it is unknown.

    Args:
        root: as in ``usable_cores``.

    Source: proc_stat(5). Time that a hypervisor took counts as busy.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    try:
        lines = [line.split() for line in (root / "proc/stat").read_text(encoding="ascii").splitlines() if line.startswith("cpu")]
        # user, nice, system, (idle, iowait,) irq, softirq, steal
        ticks = [int(fields[index]) for fields in lines if fields[0] in allowed for index in (1, 2, 3, 6, 7, 8)]
    except (OSError, ValueError, IndexError):
        return None
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


def _folders(mount: str, groups: list[str], root: Path) -> Iterator[Path]:
    """The folders of the process's group and of those around it, where ``mount`` is one of the processor's controller.

    Source: proc_pid_mountinfo(5) and cgroups(7).
    """
    left, _, right = mount.partition(" - ")
    fields, about = left.split(), right.split()
    if len(fields) < 5 or len(about) < 3:
        return
    kind, options = about[0], about[-1]
    if not (kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(","))):
        return
    top, point = PurePosixPath(_unescaped(fields[3])), root / _unescaped(fields[4]).lstrip("/")
    path = next((path for group in groups if (path := _path(group, kind)) is not None), None)
    # What lies outside the mounted part can't be seen: then the mount's own top is all there is.
    inside = path.relative_to(top) if path is not None and path.is_relative_to(top) and ".." not in path.parts else PurePosixPath()
    yield from (point / part for part in (inside, *inside.parents))


def _path(group: str, kind: str) -> PurePosixPath | None:
    """The path in a line of ``/proc/self/cgroup``, if it is the one of that kind of mount."""
    number, _, rest = group.partition(":")
    controllers, _, path = rest.partition(":")
    fits = number == "0" and not controllers if kind == "cgroup2" else "cpu" in controllers.split(",")
    return PurePosixPath(path) if fits and path.startswith("/") else None


def _quota(folder: Path) -> float | None:
    """The quota of one group, of either version."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip() for name in ("quota", "period"))
        share = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", no such file, or nothing that could be read
        return None
    return share if share > 0 else None


def _unescaped(path: str) -> str:
    """A path of ``mountinfo``, where blanks and backslashes are octal."""
    for code in (" ", "\t", "\n", "\\"):
        path = path.replace(f"\\{ord(code):03o}", code)
    return path
