"""The compiled routines of ``kernels.cpp``: built once on the machine that uses them, and kept in the user's cache folder.

``prepare`` builds (about a second, the first time) and loads them, ``loaded`` is what attention asks. Where there is no g++, no place to
write or any doubt about the result, there are none and attention is plain PyTorch: the same within rounding, and slower
(``docs/benchmarks.md``).
Knows nothing of models.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.cpp")
COMPILERS = ("g++", "c++")
# Parts of -ffast-math, so that sums and maxima can be vectorised. All of it would also make the library switch off denormal numbers for
# the whole process when it is loaded.
RELAXED = ("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-ffinite-math-only")
FLAGS = ("-O3", "-march=native", *RELAXED, "-fopenmp", "-fPIC", "-shared", "-std=c++17")
TYPES = (torch.float32, torch.bfloat16)  # there is code for these, and for heads of these widths
WIDTHS = (32, 64)
MAX_QUERIES = 16  # of an entry; beyond that, matrix products are faster
COMPILER_PATIENCE_S = 120.0

_log = logging.getLogger("florence2")
_kernels: Kernels | None = None
_is_prepared = False


class Kernels:
    """The routines of one library. Tensors are on the CPU; nothing is checked but what a caller could get wrong unnoticed."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
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
        """What few queries find among the first ``lengths`` keys of their entry. Float32 or bfloat16; sums are in float32."""
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
        """The softmax of ``scale * scores`` over the first ``lengths`` of each row, in place; contiguous bfloat16."""
        counts = None if lengths is None else lengths.data_ptr()
        self._softmax(scores.data_ptr(), *scores.shape, counts, scale, torch.get_num_threads())
        return scores

    def quantize(self, values: Float[Tensor, "*shape"], levels: int) -> tuple[Tensor, float, int]:
        """``values`` (float32 or bfloat16) as ``(uint8 - zero_point) * scale``; gives the three."""
        values = values.contiguous()
        out = torch.empty(values.shape, dtype=torch.uint8)
        scale, zero_point = ctypes.c_float(), ctypes.c_int32()
        is_bf16 = values.dtype == torch.bfloat16
        places = (out.data_ptr(), ctypes.addressof(scale), ctypes.addressof(zero_point))
        self._quantize(is_bf16, values.data_ptr(), values.numel(), levels, *places, torch.get_num_threads())
        return out, scale.value, zero_point.value

    @staticmethod
    def can_attend(query: Tensor, keys: Tensor) -> bool:
        """Whether there is code for these, and it is the fastest way."""
        return query.dtype in TYPES and keys.dtype in TYPES and query.shape[3] in WIDTHS and query.shape[2] <= MAX_QUERIES


def prepare() -> None:
    """Build and load the routines, if this machine can; done once a process, whatever comes of it."""
    global _kernels, _is_prepared
    if _is_prepared:
        return
    _is_prepared = True
    try:
        kernels = _load()
        _check(kernels)
    except (OSError, subprocess.SubprocessError, _NotHere) as error:
        _log.info("attention is computed by PyTorch alone: its compiled routines are not to be had here (%s)", error)
        return
    _kernels = kernels


def loaded() -> Kernels | None:
    """The routines, if ``prepare`` has been called and they are there."""
    return _kernels


class _NotHere(Exception):
    """Why there are no routines on this machine."""


def _load() -> Kernels:
    """The routines, from the cache or built now."""
    if sys.platform != "linux":
        raise _NotHere(f"they are for Linux, this is {sys.platform}")
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise _NotHere("no g++")
    name = f"kernels-{_fingerprint(compiler)}.so"
    folder = _cache_folder()
    if folder is None:
        with tempfile.TemporaryDirectory() as passing:  # a library that is loaded needs its file no more
            return Kernels(_build(compiler, Path(passing) / name))
    return Kernels(folder / name if (folder / name).is_file() else _build(compiler, folder / name))


def _cache_folder() -> Path | None:
    """Where libraries are kept: in the user's cache, if there is one that they and nobody else can write to."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base) / "florence2"
    if not folder.is_absolute():  # no home
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except OSError:
        return None
    is_own = status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder if is_own and os.access(folder, os.W_OK) else None


def _build(compiler: str, path: Path) -> Path:
    """Compile into ``path``; whoever builds the same at the same time ends up with one of two equal files."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        output = Path(folder) / path.name
        done = subprocess.run(
            [compiler, *FLAGS, "-o", str(output), str(SOURCE)], capture_output=True, text=True, timeout=COMPILER_PATIENCE_S, check=False
        )
        if done.returncode:
            raise _NotHere(f"{compiler} failed: {done.stderr.strip()[:500]}")
        return output.replace(path)


def _fingerprint(compiler: str) -> str:
    """What a library depends on: the source, how it is built, by what and for which processor."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=COMPILER_PATIENCE_S, check=False).stdout
    processor = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    lasting = [line for line in processor.splitlines() if not line.startswith(("cpu MHz", "bogomips"))]
    parts = (SOURCE.read_bytes(), " ".join(FLAGS).encode(), version.encode(), "\n".join(lasting).encode())
    return hashlib.blake2b(b"\0".join(parts), digest_size=12).hexdigest()


def _check(kernels: Kernels) -> None:
    """Hold the routines against PyTorch before anything depends on them."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([37, 20], dtype=torch.int32)
    for width in WIDTHS:
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.03)):
            # Strided as the cache is: tokens before heads.
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
    """Strides of the first three dimensions; the last one is contiguous in all that is attended to."""
    return (ctypes.c_int64 * 3)(*tensor.stride()[:3])
