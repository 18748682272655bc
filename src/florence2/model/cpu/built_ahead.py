"""Libraries of the compiled routines that are built with the distribution, for machines without a compiler.

A wheel for Linux carries one for each level of processors that differ in speed. The name of each holds a digest of its sources, so that
none outlives them, and one of its content. In: what the kernel says of the processor. Out: paths. Standard library only, as in
``building.py``; loads nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from florence2.model.cpu.building import FOLDER, BuildFailed, build, content_digest, find_compiler, source_digest


class Level(NamedTuple):
    """Processors that one library is for.

    Attributes:
        name: what files and messages call it.
        flags: what the compiler is told.
        features: what such a processor can do, by the names that /proc/cpuinfo has for it.
    """

    name: str
    flags: tuple[str, ...]
    features: frozenset[str]


# Source: the x86-64 psABI's microarchitecture levels. Decision 0023 says why there are none below the third, and none for what is newer
# than the fourth: the sources have no use for it. The newest is first.
_V3 = frozenset({"abm", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"})
_V4 = _V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
LEVELS = {
    "x86_64": (
        Level("x86-64-v4", ("-march=x86-64-v4",), _V4),
        # Tuned as for Zen 3, which breaks chains of fused additions: a query of float32 takes 0.13 ms instead of 0.17 there.
        Level("x86-64-v3", ("-march=x86-64-v3", "-mtune=znver3"), _V3),
    ),
    "aarch64": (Level("armv8-a", ("-march=armv8-a",), frozenset({"asimd", "fp"})),),
}
"""Levels by the kind of machine, as ``platform.machine`` names it."""

# Source: manylinux-policy.json of auditwheel. What a library may ask of glibc, libstdc++ and its runtime on a platform, the oldest first.
_PLATFORMS = {
    (2, 17): {"GLIBC": (2, 17), "GLIBCXX": (3, 4, 19), "CXXABI": (1, 3, 7)},
    (2, 28): {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)},
    (2, 34): {"GLIBC": (2, 34), "GLIBCXX": (3, 4, 29), "CXXABI": (1, 3, 13)},
}
_VERSIONED = re.compile(rb"\0(GLIBC|GLIBCXX|CXXABI)_(\d+(?:\.\d+)+)(?=\0)")


def build_libraries(machine: str, folder: Path) -> list[Path]:
    """Compile the libraries of all levels of a kind of machine, and return their paths.

    Args:
        machine: a key of ``LEVELS``; another one than this needs a cross compiler.
        folder: where they are written.

    Raises:
        BuildFailed: there is no compiler for it, or it failed.
    """
    if (compiler := find_compiler(machine)) is None:
        raise BuildFailed(f"no compiler for {machine}")
    paths = []
    for level in LEVELS[machine]:
        library = build(compiler, level.flags)
        paths.append(folder / f"{_stem(level)}-{content_digest(library)}.so")
        paths[-1].write_bytes(library)
    return paths


def fitting_libraries(machine: str, cpuinfo: str, folder: Path = FOLDER) -> list[Path]:
    """The libraries that are there for a processor, the newest level first.

    Args:
        machine: as ``platform.machine`` names it.
        cpuinfo: the content of ``/proc/cpuinfo``.
        folder: where libraries lie: in a wheel, beside the source.
    """
    can = features_of(cpuinfo)
    levels = [level for level in LEVELS.get(machine, ()) if level.features <= can]
    return [path for level in levels for path in sorted(folder.glob(f"{_stem(level)}-*.so"))]


def features_of(cpuinfo: str) -> frozenset[str]:
    """What the processor can do: ``flags`` of x86, ``Features`` of ARM.

    Args:
        cpuinfo: the content of ``/proc/cpuinfo``.
    """
    found = re.search(r"^(?:flags|Features)[ \t]*:(.*)$", cpuinfo, re.MULTILINE)
    return frozenset(found[1].split() if found else ())


def level_of(path: Path) -> str:
    """The name of the level that a library is for."""
    return path.stem.removeprefix("kernels-").rsplit("-", 2)[0]


def platform_tag(libraries: list[Path], machine: str) -> str:
    """The oldest platform that libraries run on, as wheels name it: by the versions of the system's libraries that they ask for.

    Raises:
        BuildFailed: they ask for newer ones than any platform has.
    """
    needed: dict[str, tuple[int, ...]] = {}
    for path in libraries:
        for name, version in _VERSIONED.findall(path.read_bytes()):
            parts = tuple(map(int, version.split(b".")))
            needed[name.decode()] = max(needed.get(name.decode(), ()), parts)
    for (major, minor), has in _PLATFORMS.items():
        if all(version <= has[name] for name, version in needed.items()):
            return f"manylinux_{major}_{minor}_{machine}"
    raise BuildFailed(f"the routines need {needed}, which is newer than any platform of wheels has")


def _stem(level: Level) -> str:
    return f"kernels-{level.name}-{source_digest(*level.flags)}"
