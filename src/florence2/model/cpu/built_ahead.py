"""Kernels that were compiled before they are needed, such as in the build of a container image, for machines without a compiler.

Beside the source there is a library for each generation of processors, under a name that changes with the source, so that none outlives
it. In: what the kernel says of the processor. Out: paths. Compiles and loads nothing.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

FOLDER = Path(__file__).parent
# Source: the x86-64 psABI's microarchitecture levels, by the names that /proc/cpuinfo has for their features. The newest is first.
_V3 = frozenset({"abm", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"})
LEVELS = {
    "x86-64-v4": _V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"},
    "x86-64-v3": _V3,
}
"""Generations that there are libraries for, as the compiler calls them, and what a processor of each can do."""


def library_path(level: str, source: bytes, folder: Path = FOLDER) -> Path:
    """Where the library of a generation lies.

    Args:
        level: a key of ``LEVELS``.
        source: what it is compiled from, flags included.
        folder: where they all lie.
    """
    return folder / f"kernels-{level}-{hashlib.blake2b(source, digest_size=8).hexdigest()}.so"


def fitting_library(source: bytes, processor: str, folder: Path = FOLDER) -> Path | None:
    """The library that is there for the newest generation that a processor belongs to; None if there is none.

    Args:
        source: as in ``library_path``.
        processor: the content of ``/proc/cpuinfo``.
        folder: as in ``library_path``.
    """
    features = re.search(r"^flags\s*:(.*)$", processor, re.MULTILINE)
    can = frozenset(features[1].split() if features else ())
    paths = (library_path(level, source, folder) for level, needed in LEVELS.items() if needed <= can)
    return next((path for path in paths if path.is_file()), None)
