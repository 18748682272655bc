"""Where the library of compiled kernels comes from, and whether it computes what PyTorch does.

``prepare`` loads them, from the first of: the package, whose wheels for Linux carry them for the usual processors; the user's cache folder;
a compiler, which takes some seconds, once. ``loaded`` returns them. If there are none, or if their results differ from PyTorch's, the model
is plain PyTorch: the same within rounding, and slower (``docs/benchmarks.md``). ``FLORENCE2_NATIVE=0`` asks for that. A library is loaded
from memory, so a file that is cut short later ends nobody. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import platform
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence2.errors import InvalidOption
from florence2.model.cpu import library_cache
from florence2.model.cpu.building import NATIVE, build, compiler_version, content_digest, find_compiler, source_digest
from florence2.model.cpu.built_ahead import fitting_libraries, level_of
from florence2.model.cpu.library_cache import NotUsable
from florence2.model.cpu.routines import WIDTHS, Kernels, Sums

SWITCH = "FLORENCE2_NATIVE"

_log = logging.getLogger("florence2")
_kernels: Kernels | None = None
_origin: Origin | None = None
_preparing = threading.Lock()
_number_of_loads = itertools.count(1)


class Origin(NamedTuple):
    """Where the kernels of this process come from.

    Attributes:
        kind: "wheel", "cache", "built" (compiled in this process), "off" (switched off) or "none".
        reason: the processors that the wheel's library is for, the file of the cache, or why there are none.
    """

    kind: str
    reason: str


def prepare() -> None:
    """Load the kernels if this machine can; tried once per process.

    Raises:
        InvalidOption: ``FLORENCE2_NATIVE`` is neither 0 nor 1.
    """
    global _kernels, _origin
    with _preparing:
        if _origin is not None:
            return
        if not is_wanted():
            _origin = Origin("off", f"{SWITCH}=0")
            return
        try:
            _kernels, _origin = _load()
        except Exception as error:  # of the compiler, the disk or the library: PyTorch computes attention instead
            _origin = Origin("none", str(error))
            _log.info("attention is computed by PyTorch alone: its compiled routines are not to be had here (%s)", error)


def loaded() -> Kernels | None:
    """The kernels; None if ``prepare`` was not called or could not load them."""
    return _kernels


def origin() -> Origin:
    """Where the kernels of this process come from."""
    return _origin or Origin("none", "not loaded yet")


def is_wanted() -> bool:
    """Whether routines of our own are to be used where they can be had.

    Raises:
        InvalidOption: ``FLORENCE2_NATIVE`` is neither 0 nor 1.
    """
    switch = os.environ.get(SWITCH, "")
    if switch not in ("", "0", "1"):
        raise InvalidOption(f"{SWITCH} must be 1 (compiled routines where they can be had) or 0 (PyTorch alone), got {switch!r}")
    return switch != "0"


def _load() -> tuple[Kernels, Origin]:
    """The kernels, from the package, from the cache or compiled now."""
    if sys.platform != "linux":
        raise NotUsable(f"they are for Linux, this is {sys.platform}")
    for path in fitting_libraries(platform.machine(), _processors()):
        if (kernels := _from_package(path)) is not None:
            return kernels, Origin("wheel", level_of(path))
    if (compiler := find_compiler()) is None:
        raise NotUsable("no g++, and none in this package for this processor")
    return _compiled_here(compiler)


def _compiled_here(compiler: str) -> tuple[Kernels, Origin]:
    """The kernels for this very processor, from the cache or compiled now."""
    stem, folder = f"kernels-{_fingerprint(compiler)}", library_cache.cache_folder()
    if folder is not None:
        library_cache.sweep(folder)
        for path in sorted(folder.glob(f"{stem}-*.so")):
            if (kernels := _from_cache(path)) is not None:
                return kernels, Origin("cache", str(path))
    if folder is None:
        _log.warning(
            "routines for this processor are compiled, at each start anew as there is no folder to keep them in: set XDG_CACHE_HOME"
        )
    library = build(compiler, NATIVE, folder)
    kernels = _opened(library)
    if folder is None:
        return kernels, Origin("built", "there is no cache folder to keep them in")
    path = folder / f"{stem}-{content_digest(library)}.so"
    with contextlib.suppress(OSError):  # disk full: the next process compiles again
        library_cache.keep(library, path)
    return kernels, Origin("built", str(path))


def _from_package(path: Path) -> Kernels | None:
    """The kernels of a library that was installed with the package; None if it does not work here."""
    try:
        return _opened(library_cache.read(path, must_be_own=False))
    except (OSError, AttributeError, NotUsable) as error:
        _log.warning("the compiled routines in %s are not used: %s", path, error)
        return None


def _from_cache(path: Path) -> Kernels | None:
    """The kernels in a file of the cache; if the file is not what was compiled, it is removed and None is returned."""
    try:
        return _opened(library_cache.read(path))
    except (OSError, AttributeError, NotUsable) as error:
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


def _processors() -> str:
    """What the system says of its processors."""
    return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")


def _fingerprint(compiler: str) -> str:
    """A digest of everything a library of this machine depends on: source, compiler flags, compiler version and processor."""
    processor = _processors().split("\n\n")[0]
    lasting = [line for line in processor.splitlines() if not line.startswith(("cpu MHz", "bogomips"))]
    return source_digest(*NATIVE, compiler_version(compiler), "\n".join(lasting))


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
    _check_rows(kernels, generator)
    _check_best_tokens(kernels, generator)


def _check_rows(kernels: Kernels, generator: torch.Generator) -> None:
    """Compare what is done with rows in 8 bits."""
    norm = nn.LayerNorm(37)
    norm.weight.data, norm.bias.data = torch.rand(37, generator=generator), torch.randn(37, generator=generator)
    weight_sums, bias = torch.randn(2, 37, generator=generator)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.03)):
        values = torch.randn(5, 2, 37, generator=generator).to(dtype).transpose(0, 1)  # strides as of a window
        residual = torch.randn(2, 5, 37, generator=generator).to(dtype)
        for given, expected in ((None, values.float()), (norm, F.layer_norm(values.float(), (37,), norm.weight, norm.bias))):
            levels, scales, lows = rows = kernels.quantize_rows(values, 200, given)
            got = torch.addcmul(lows.unsqueeze(-1), levels.float(), scales.unsqueeze(-1))
            _compare(got / scales.unsqueeze(-1), expected / scales.unsqueeze(-1), 0.51)
        sums = Sums(levels.float(), rows, weight_sums, bias, True)
        expected = F.gelu(levels.float() * scales.unsqueeze(-1) + lows.unsqueeze(-1) * weight_sums + bias)
        _compare(kernels.finish_rows(sums, torch.empty_like(residual), residual).float(), expected + residual.float(), tolerance)
        levels, scales, lows = kernels.requantize_rows(sums, 127)
        _compare(levels.float() + (lows / scales).unsqueeze(-1), expected / scales.unsqueeze(-1), 0.51)


def _check_best_tokens(kernels: Kernels, generator: torch.Generator) -> None:
    """Compare what is chosen of logits, of more than a thousand tokens, some of them banned."""
    logits = torch.randn(3, 1037, generator=generator) * 4
    log_probabilities = logits.log_softmax(-1)
    best = log_probabilities.argmax(-1).tolist()
    got = kernels.best_tokens(logits.clone(), 5, [(best[0],), (), ()], [7], range(3, 1003))
    _compare(torch.from_numpy(got.forced), log_probabilities[:, [7]], 1e-4)
    _compare(torch.from_numpy(got.locations), log_probabilities[:, 3:1003].exp(), 1e-5)
    log_probabilities[0, best[0]] = -torch.inf
    expected = log_probabilities.topk(5)
    _compare(torch.from_numpy(got.token_ids), expected.indices, 0)
    _compare(torch.from_numpy(got.log_probabilities), expected.values, 1e-4)


def _compare(got: Tensor, expected: Tensor, tolerance: float) -> None:
    if not torch.allclose(got, expected, atol=tolerance, rtol=tolerance):
        raise NotUsable("they compute something else than PyTorch")


def _renew_lock() -> None:
    """Replace the lock in a forked child process, where the thread that may have held it does not exist."""
    global _preparing
    _preparing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
