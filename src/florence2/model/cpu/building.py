"""The compiled routines' sources, and how a compiler makes a library of them.

In: the compiler and its flags for a processor. Out: the content of a shared library. Standard library only, because the build of the
distribution imports it as well, where PyTorch is not installed (``hatch_build.py``).
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = (
    "kernels.cpp",
    "quantizing.cpp",
    "decoder_step.cpp",
    "choosing.cpp",
)  # compiled beside each other and linked into one library; headers (*.h) lie beside them
COMPILERS = ("g++", "c++")
# The parts of -ffast-math that let sums and maxima be vectorised. With all of it, loading the library would also switch off denormal
# numbers for the whole process.
RELAXED = ("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-ffinite-math-only")
# Sized deallocation is a symbol of newer C++ libraries than the rest needs.
PORTABLE = ("-O3", *RELAXED, "-fopenmp", "-fPIC", "-std=c++17", "-fno-sized-deallocation")
NATIVE = ("-march=native",)
# Without -fopenmp, so that the library asks for no OpenMP of its own: its calls are bound to the one that PyTorch has loaded. With two in
# one process each would keep threads, and those of one would spin while the other's compute.
LINK = ("-shared",)
COMPILER_PATIENCE_S = 120.0
MAX_LIBRARY_BYTES = 1 << 24
BUILDING = "building-"  # prefix of the folders in which a library is compiled


class BuildFailed(Exception):
    """The compiler did not make a library; the message says why."""


def find_compiler(machine: str | None = None) -> str | None:
    """The path of a compiler for a kind of machine; None if there is none.

    Args:
        machine: as ``platform.machine`` names it: a cross compiler is looked for where it is not this one. None: this one.
    """
    names = COMPILERS if machine in (None, platform.machine()) else (f"{machine}-linux-gnu-g++",)
    return next((found for name in names if (found := shutil.which(name))), None)


def build(compiler: str, processor_flags: tuple[str, ...], folder: Path | None = None) -> bytes:
    """The content of a newly compiled library.

    Args:
        compiler: its path.
        processor_flags: for which processor.
        folder: where the temporary folder is made; None: the system's.

    Raises:
        BuildFailed: with what the compiler says.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=BUILDING) as passing:
        objects = [str(Path(passing) / f"{source}.o") for source in SOURCES]
        commands = [
            [compiler, *processor_flags, *PORTABLE, "-c", "-o", made, str(FOLDER / source)]
            for source, made in zip(SOURCES, objects, strict=True)
        ]
        with ThreadPoolExecutor(len(commands)) as pool:
            list(pool.map(_run_compiler, commands))
        library = Path(passing) / "kernels.so"
        _run_compiler([compiler, *LINK, "-o", str(library), *objects])
        return library.read_bytes()


def source_digest(*more: str) -> str:
    """A digest of all that a library is made of: sources, headers, flags, and ``more``."""
    files = [FOLDER / name for name in SOURCES] + sorted(FOLDER.glob("*.h"))
    parts = [*(file.read_bytes() for file in files), *(text.encode() for text in (" ".join((*PORTABLE, *LINK)), *more))]
    return hashlib.blake2b(b"\0".join(parts), digest_size=12).hexdigest()


def content_digest(library: bytes) -> str:
    """A digest of a library, for its name: what is found under it later is what was built."""
    return hashlib.blake2b(library, digest_size=16).hexdigest()


def compiler_version(compiler: str) -> str:
    """What a compiler says of itself."""
    return _ran([compiler, "--version"]).stdout


def _run_compiler(command: list[str]) -> None:
    done = _ran(command)
    if done.returncode:
        raise BuildFailed(f"{command[0]} failed: {done.stderr.strip()[:500]}")


def _ran(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=COMPILER_PATIENCE_S, check=False)
