"""The kernels (``kernels.cpp``, ``decoder_step.cpp``), compiled on the user's machine for its processor and kept in their cache folder.

``prepare`` compiles them (about a second, the first time) and loads them; ``loaded`` returns them. If there is no g++, if no folder is
writable, or if the results differ from PyTorch's, there are no kernels and attention is plain PyTorch: the same within rounding, and
slower (``docs/benchmarks.md``). A file of the cache is read, compared with the digest in its name, and loaded from memory, so a truncated,
replaced or changed file is never executed. Without a compiler, what ``build_ahead`` has left beside the source is taken. Knows nothing of
models.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from florence2.model.cpu.built_ahead import FOLDER, LEVELS, fitting_library, library_path

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SOURCE = Path(__file__).with_name("kernels.cpp")
SOURCES = (SOURCE, SOURCE.with_name("decoder_step.cpp"))
HEADERS = tuple(SOURCE.with_name(name) for name in ("attending.h", "products.h", "vectors.h"))
COMPILERS = ("g++", "c++")
# The parts of -ffast-math that let sums and maxima be vectorised. With all of it, loading the library would also switch off denormal
# numbers for the whole process.
RELAXED = ("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-ffinite-math-only")
_PORTABLE = ("-O3", *RELAXED, "-fopenmp", "-fPIC", "-shared", "-std=c++17")
FLAGS = ("-march=native", *_PORTABLE)
STEP_ROUTINES = ("florence2_decoder_step", "florence2_multiply", "florence2_dots")  # called by panels.py and model/decoder_step.py
TYPES = (torch.float32, torch.bfloat16)  # supported by attend, with heads of these widths
WIDTHS = (32, 64)
MAX_QUERIES = 16  # per entry; with more, matrix products are faster
COMPILER_PATIENCE_S = 120.0
MAX_LIBRARY_BYTES = 1 << 24
BUILDING = "building-"  # prefix of the folders in which a library is compiled

_log = logging.getLogger("florence2")
_kernels: Kernels | None = None
_is_prepared = False
_preparing = threading.Lock()
_number_of_loads = itertools.count(1)


class Kernels:
    """The kernels of one library. All tensors are on the CPU; arguments are not checked, except the width of heads."""

    def __init__(self, path: str) -> None:
        library = self.library = ctypes.CDLL(path)
        for name in STEP_ROUTINES:
            getattr(library, name).restype = None  # fails here where a routine is missing
        pointer, size, integer = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        self._attend = library.florence2_attend
        self._attend.argtypes = [integer, integer, integer, *[pointer] * 7, size, size, size, pointer, ctypes.c_float, integer]
        self._attend.restype = integer
        self._softmax = library.florence2_softmax
        self._softmax.argtypes = [pointer, size, size, size, pointer, ctypes.c_float, integer]
        self._softmax.restype = None
        self._quantize = library.florence2_quantize
        self._quantize.argtypes = [integer, pointer, size, integer, pointer, pointer, pointer, integer]
        self._quantize.restype = None

    def attend(
        self,
        query: Float[Tensor, "entries heads tokens head_width"],
        keys: Float[Tensor, "entries heads source head_width"],
        values: Float[Tensor, "entries heads source head_width"],
        lengths: Int[Tensor, " entries"],
    ) -> Float[Tensor, "entries tokens width"]:
        """The attention output of a few queries over the first ``lengths`` keys of their entry; sums are in float32."""
        entries, heads, tokens, head_width = query.shape
        out = torch.empty(entries, tokens, heads * head_width, dtype=query.dtype)
        failed = self._attend(
            *(query.dtype == torch.bfloat16, keys.dtype == torch.bfloat16, head_width),
            *(query.data_ptr(), _strides(query), keys.data_ptr(), _strides(keys), values.data_ptr(), _strides(values), out.data_ptr()),
            *(entries, heads, tokens, lengths.data_ptr(), head_width**-0.5, torch.get_num_threads()),
        )
        if failed:
            raise ValueError(f"there is no routine for heads of width {head_width}")
        return out

    def softmax_(
        self, scores: Float[Tensor, "entries rows source"], scale: float, lengths: Int[Tensor, " entries"] | None
    ) -> Float[Tensor, "entries rows source"]:
        """The softmax of ``scale * scores`` over the first ``lengths`` values of each row, in place; contiguous bfloat16."""
        counts = None if lengths is None else lengths.data_ptr()
        self._softmax(scores.data_ptr(), *scores.shape, counts, scale, torch.get_num_threads())
        return scores

    def quantize(self, values: Float[Tensor, "*shape"], levels: int) -> tuple[Tensor, float, int]:
        """The levels, scale and zero point of ``values`` (float32 or bfloat16) as ``(uint8 - zero_point) * scale``."""
        values = values.contiguous()
        out = torch.empty(values.shape, dtype=torch.uint8)
        scale, zero_point = ctypes.c_float(), ctypes.c_int32()
        is_bf16 = values.dtype == torch.bfloat16
        outputs = (out.data_ptr(), ctypes.addressof(scale), ctypes.addressof(zero_point))
        self._quantize(is_bf16, values.data_ptr(), values.numel(), levels, *outputs, torch.get_num_threads())
        return out, scale.value, zero_point.value

    @staticmethod
    def can_attend(query: Tensor, keys: Tensor) -> bool:
        """Whether ``attend`` supports these tensors and is the fastest routine for them."""
        return query.dtype in TYPES and keys.dtype in TYPES and query.shape[3] in WIDTHS and query.shape[2] <= MAX_QUERIES


def prepare() -> None:
    """Compile and load the kernels if this machine can; tried once per process."""
    global _kernels, _is_prepared
    with _preparing:
        if _is_prepared:
            return
        try:
            _kernels = _load()
        except Exception as error:  # of the compiler, the disk or the library: PyTorch computes attention instead
            _log.info("attention is computed by PyTorch alone: its compiled routines are not to be had here (%s)", error)
        _is_prepared = True


def build_ahead(folder: Path = FOLDER) -> list[Path]:
    """Compile the kernels for machines without a compiler, one library for each generation of processors, and return their paths.

    Args:
        folder: where ``prepare`` looks for them.

    Raises:
        RuntimeError: there is no compiler, or it failed.
    """
    if (compiler := _compiler()) is None:
        raise RuntimeError(f"there is no compiler to build the routines with: expected one of {', '.join(COMPILERS)}")
    paths = []
    for level in LEVELS:
        path = library_path(level, _portable_source(), folder)
        try:
            path.write_bytes(_build(compiler, None, (f"-march={level}", *_PORTABLE)))
        except _NotHere as failure:
            raise RuntimeError(str(failure)) from None
        paths.append(path)
    return paths


def loaded() -> Kernels | None:
    """The kernels; None if ``prepare`` was not called or could not load them."""
    return _kernels


class _NotHere(Exception):
    """The reason why there are no kernels on this machine."""


def _load() -> Kernels:
    """The kernels, from the cache or compiled now."""
    if sys.platform != "linux":
        raise _NotHere(f"they are for Linux, this is {sys.platform}")
    if (compiler := _compiler()) is None:
        path = fitting_library(_portable_source(), _processors())
        if path is None:
            raise _NotHere("no g++")
        return _opened(path.read_bytes())
    stem, folder = f"kernels-{_fingerprint(compiler)}", _cache_folder()
    if folder is not None:
        _sweep(folder)
        for path in sorted(folder.glob(f"{stem}-*.so")):
            if (kernels := _from_cache(path)) is not None:
                return kernels
    library = _build(compiler, folder)
    kernels = _opened(library)
    if folder is not None:
        with contextlib.suppress(OSError):  # disk full: the next process compiles again
            _keep(library, folder / f"{stem}-{_digest(library)}.so")
    return kernels


def _from_cache(path: Path) -> Kernels | None:
    """The kernels in a file of the cache; if the file is not what was compiled, it is removed and None is returned."""
    try:
        return _opened(_read(path))
    except (OSError, AttributeError, _NotHere) as error:
        _log.info("%s is thrown away and built anew: %s", path, error)
        with contextlib.suppress(OSError):
            path.unlink()
        return None


def _opened(library: bytes) -> Kernels:
    """The kernels of a library, loaded from memory and checked against PyTorch."""
    try:
        with os.fdopen(os.memfd_create("florence2-kernels", os.MFD_CLOEXEC), "wb") as file:
            # One more slash each time: for a path that it knows, the dynamic linker returns the library that is already loaded.
            kernels = _written(library, file, f"/proc/self/fd{'/' * next(_number_of_loads)}{file.fileno()}")
    except (OSError, AttributeError):  # systems that allow no code in such memory, and Python builds for older systems
        with tempfile.NamedTemporaryFile(suffix=".so") as file:
            kernels = _written(library, file, file.name)
    _check(kernels)
    return kernels


def _written(library: bytes, file: IO[bytes], path: str) -> Kernels:
    file.write(library)
    file.flush()
    return Kernels(path)


def _read(path: Path) -> bytes:
    """The content of a file of the cache, compared with the digest in its name."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or not _is_own(status):
            raise _NotHere("no file that its user alone can write to")
        library = file.read(MAX_LIBRARY_BYTES + 1)
    if _digest(library) != path.stem.rpartition("-")[2]:
        raise _NotHere("its content is not what was built")
    return library


def _keep(library: bytes, path: Path) -> None:
    """Write a library into the cache atomically; if several processes do so at the same time, the last one stays."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=BUILDING) as folder:
        new = Path(folder) / path.name
        new.touch(mode=0o600)
        new.write_bytes(library)
        new.replace(path)


def _sweep(folder: Path) -> None:
    """Remove the folders of processes that were ended while they compiled."""
    for left in folder.glob(f"{BUILDING}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 2 * COMPILER_PATIENCE_S:
                shutil.rmtree(left)


def _digest(library: bytes) -> str:
    return hashlib.blake2b(library, digest_size=16).hexdigest()


def _is_own(status: os.stat_result) -> bool:
    """Whether the user owns the file or folder and nobody else can write to it."""
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _cache_folder() -> Path | None:
    """The folder for compiled libraries, in the user's cache; None if it is missing or others can write to it."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base) / "florence2"
    if not folder.is_absolute():  # no home
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except OSError:
        return None
    return folder if _is_own(status) and os.access(folder, os.W_OK) else None


def _compiler() -> str | None:
    """The path of the compiler; None if there is none."""
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


def _portable_source() -> bytes:
    """What libraries that are built ahead depend on."""
    return b"\0".join((_source(), " ".join(_PORTABLE).encode()))


def _source() -> bytes:
    """The whole source code."""
    return b"\0".join(path.read_bytes() for path in (*SOURCES, *HEADERS))


def _processors() -> str:
    """What the system says of its processors."""
    return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")


def _build(compiler: str, folder: Path | None, flags: tuple[str, ...] = FLAGS) -> bytes:
    """The content of a newly compiled library; ``folder`` is where the temporary folder is made, None for the system's."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=BUILDING) as passing:
        output = Path(passing) / "kernels.so"
        done = _run([compiler, *flags, "-o", str(output), *map(str, SOURCES)])
        if done.returncode:
            raise _NotHere(f"{compiler} failed: {done.stderr.strip()[:500]}")
        return output.read_bytes()


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=COMPILER_PATIENCE_S, check=False)


def _fingerprint(compiler: str) -> str:
    """A digest of everything a library depends on: source, compiler flags, compiler version and processor."""
    version = _run([compiler, "--version"]).stdout
    processor = _processors().split("\n\n")[0]
    lasting = [line for line in processor.splitlines() if not line.startswith(("cpu MHz", "bogomips"))]
    parts = (_source(), " ".join(FLAGS).encode(), version.encode(), "\n".join(lasting).encode())
    return hashlib.blake2b(b"\0".join(parts), digest_size=12).hexdigest()


def _check(kernels: Kernels) -> None:
    """Compare the kernels with PyTorch before they are used."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([37, 20], dtype=torch.int32)
    for width in WIDTHS:
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.03)):
            # Strides as in the cache: tokens before heads.
            query, keys, values = (
                torch.randn(2, tokens, 3, width, generator=generator).to(dtype).transpose(1, 2) for tokens in (2, 37, 37)
            )
            got = kernels.attend(query, keys, values, lengths).float()
            for entry, length in enumerate(lengths.tolist()):
                parts = (query[entry].float(), keys[entry, :, :length].float(), values[entry, :, :length].float())
                expected = F.scaled_dot_product_attention(*parts).transpose(0, 1).flatten(1)
                _compare(got[entry], expected, tolerance)
    scores = torch.randn(2, 5, 37, generator=generator).bfloat16()
    hidden = torch.arange(37) >= lengths.view(2, 1, 1)
    _compare(
        kernels.softmax_(scores.clone(), 0.5, lengths).float(), (scores.float() * 0.5).masked_fill(hidden, -torch.inf).softmax(-1), 0.01
    )
    levels, scale, zero_point = kernels.quantize(scores, 255)
    _compare((levels.float() - zero_point) * scale, scores.float(), scale)


def _compare(got: Tensor, expected: Tensor, tolerance: float) -> None:
    if not torch.allclose(got, expected, atol=tolerance, rtol=tolerance):
        raise _NotHere("they compute something else than PyTorch")


def _strides(tensor: Tensor) -> ctypes.Array[ctypes.c_int64]:
    """Strides of the first three dimensions; the last dimension is always contiguous."""
    return (ctypes.c_int64 * 3)(*tensor.stride()[:3])


def _renew_lock() -> None:
    """Replace the lock in a forked child process, where the thread that may have held it does not exist."""
    global _preparing
    _preparing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
