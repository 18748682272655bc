"""The kernels (``kernels.cpp``, ``quantizing.cpp``, ``decoder_step.cpp``, ``choosing.cpp``) in one library, and where it comes from.

``prepare`` loads them, from the first of: the package, whose wheels for Linux carry them for the usual processors; the user's cache folder;
a compiler, which takes some seconds, once. ``loaded`` returns them. If there are none, or if their results differ from PyTorch's, the model
is plain PyTorch: the same within rounding, and slower (``docs/benchmarks.md``). ``FLORENCE2_NATIVE=0`` asks for that. A library is loaded
from memory, so a file that is cut short later ends nobody. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from florence2.errors import InvalidOption
from florence2.model.cpu import library_cache
from florence2.model.cpu.building import NATIVE, build, compiler_version, content_digest, find_compiler, source_digest
from florence2.model.cpu.built_ahead import fitting_libraries, level_of
from florence2.model.cpu.library_cache import NotUsable

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SWITCH = "FLORENCE2_NATIVE"
STEP_ROUTINES = ("florence2_decoder_step", "florence2_multiply")  # called by panels.py and model/decoder_step.py
TYPES = (torch.float32, torch.bfloat16)  # supported by attend, with heads of these widths
WIDTHS = (32, 64)
MAX_QUERIES = 16  # per entry; with more, matrix products are faster

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


class QuantizedRows(NamedTuple):
    """Rows in 8 bits: the values of a row are ``low + level * scale``.

    Attributes:
        levels: uint8, with the shape of the values.
        scales: one for each row.
        lows: one for each row.
    """

    levels: Tensor
    scales: Float[Tensor, "*rows"]
    lows: Float[Tensor, "*rows"]

    @classmethod
    def empty(cls, shape: Sequence[int]) -> QuantizedRows:
        """Memory for rows of values of this shape."""
        return cls(torch.empty(shape, dtype=torch.uint8), torch.empty(shape[:-1]), torch.empty(shape[:-1]))

    @property
    def addresses(self) -> tuple[int, int, int]:
        """Where they lie."""
        return self.levels.data_ptr(), self.scales.data_ptr(), self.lows.data_ptr()


class Sums(NamedTuple):
    """A product of rows in 8 bits, and what makes a layer's output of it: ``sums * scales + lows * weight_sums + bias``, and GELU of that.

    Attributes:
        sums: levels times weights, float32 and contiguous, ``[*rows, outputs]``.
        rows: what was multiplied.
        weight_sums: of the weights of each output.
        bias: ``[outputs]`` or None.
        gelu: whether GELU follows.
    """

    sums: Float[Tensor, "*rows outputs"]
    rows: QuantizedRows
    weight_sums: Float[Tensor, " outputs"]
    bias: Float[Tensor, " outputs"] | None
    gelu: bool

    @property
    def arguments(self) -> tuple[int | None, ...]:
        """The first arguments of the kernels that read them."""
        outputs = self.sums.shape[-1]
        _, scales, lows = self.rows.addresses
        bias = None if self.bias is None else self.bias.data_ptr()
        return self.sums.data_ptr(), scales, lows, self.weight_sums.data_ptr(), bias, self.gelu, self.sums.numel() // outputs, outputs


class BestTokens(NamedTuple):
    """The best next tokens of some rows.

    Attributes:
        token_ids: best first; of equal ones the lower.
        log_probabilities: minus infinity for a banned token; all NaN where the row's logits are not numbers.
        forced: the log-probabilities of the tokens that may be forced.
        locations: the probabilities of the location tokens.
    """

    token_ids: NDArray[np.int64]  # [rows, count]
    log_probabilities: NDArray[np.float32]  # [rows, count]
    forced: NDArray[np.float32]  # [rows, forced]
    locations: NDArray[np.float32]  # [rows, locations]


class _Question(ctypes.Structure):
    _fields_ = (
        *(("count", ctypes.c_int64), ("forced", ctypes.c_void_p), ("num_forced", ctypes.c_int64)),
        *(("locations", ctypes.c_void_p), ("num_locations", ctypes.c_int64), ("banned", ctypes.c_void_p), ("ban_starts", ctypes.c_void_p)),
    )


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
        sums = [pointer] * 5 + [integer, size, size]
        self._quantize_rows = library.florence2_quantize_rows
        self._quantize_rows.argtypes = [
            *(integer, pointer, size, pointer, pointer, size, pointer, pointer, ctypes.c_float),
            *(integer, pointer, pointer, pointer, integer),
        ]
        self._finish_rows = library.florence2_finish_rows
        self._finish_rows.argtypes = [integer, *sums, pointer, pointer, integer]
        self._requantize_rows = library.florence2_requantize_rows
        self._requantize_rows.argtypes = [*sums, integer, pointer, pointer, pointer, integer]
        self._best_tokens = library.florence2_best_tokens
        self._best_tokens.argtypes = [pointer, size, size, pointer, pointer, integer]
        self._best_tokens.restype = None
        self._quantize_rows.restype = self._finish_rows.restype = self._requantize_rows.restype = None

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

    def quantize_rows(self, values: Float[Tensor, "*rows width"], top: int, norm: nn.LayerNorm | None = None) -> QuantizedRows:
        """Rows of ``values`` in levels 0 to ``top``, normalised before if there is a norm.

        Values are float32 or bfloat16, of any strides; the last dimension is contiguous.
        """
        out = QuantizedRows.empty(values.shape)
        dimensions = values.dim() - 1
        sizes, strides = ((ctypes.c_int64 * dimensions)(*numbers[:-1]) for numbers in (values.shape, values.stride()))
        factors = () if norm is None else (norm.weight.float(), norm.bias.float())
        norm_arguments = (None, None, 0.0) if norm is None else (*(each.data_ptr() for each in factors), norm.eps)
        self._quantize_rows(
            *(values.dtype == torch.bfloat16, values.data_ptr(), dimensions, sizes, strides, values.shape[-1]),
            *(*norm_arguments, top, *out.addresses, torch.get_num_threads()),
        )
        return out

    def finish_rows(self, sums: Sums, out: Tensor, residual: Tensor | None = None) -> Float[Tensor, "*rows outputs"]:
        """The layer's output plus the residual, written to ``out`` (float32 or bfloat16); contiguous, and of one type.

        ``out`` may be the residual, or the sums themselves.
        """
        added = None if residual is None else residual.data_ptr()
        self._finish_rows(out.dtype == torch.bfloat16, *sums.arguments, added, out.data_ptr(), torch.get_num_threads())
        return out

    def requantize_rows(self, sums: Sums, top: int) -> QuantizedRows:
        """The layer's output in levels 0 to ``top``, of which the next layer makes a product."""
        out = QuantizedRows.empty(sums.sums.shape)
        self._requantize_rows(*sums.arguments, top, *out.addresses, torch.get_num_threads())
        return out

    def best_tokens(
        self,
        logits: Float[Tensor, "rows vocabulary"],
        count: int,
        banned: Sequence[Sequence[int]],
        forced: Sequence[int],
        locations: Sequence[int],
    ) -> BestTokens:
        """The ``count`` best next tokens of every row, at most as many as there are tokens.

        Args:
            logits: contiguous float32; may be overwritten.
            count: how many a row.
            banned: for each row the tokens that it may not take; they count in the others' probabilities. Empty where no row has any.
            forced: tokens whose log-probabilities are wanted whatever their rank.
            locations: tokens whose probabilities are wanted whatever their rank.
        """
        rows, vocabulary = logits.shape
        columns = (count, len(forced), len(locations))
        out = BestTokens(np.empty((rows, count), np.int64), *(np.empty((rows, number), np.float32) for number in columns))
        bans = (
            [_tokens([token for row in banned for token in row]), np.cumsum([0, *map(len, banned)], dtype=np.int64)] if any(banned) else []
        )
        wanted = [_tokens(forced), _tokens(locations)]
        addresses = [part.ctypes.data for part in (*wanted, *bans)] + [None] * (2 - len(bans))
        question = _Question(count, addresses[0], len(forced), addresses[1], len(locations), *addresses[2:])
        answer = (ctypes.c_void_p * len(out))(*(part.ctypes.data for part in out))
        self._best_tokens(logits.data_ptr(), rows, vocabulary, ctypes.byref(question), answer, torch.get_num_threads())
        return out

    @staticmethod
    def can_attend(query: Tensor, keys: Tensor) -> bool:
        """Whether ``attend`` supports these tensors and is the fastest routine for them."""
        return query.dtype in TYPES and keys.dtype in TYPES and query.shape[3] in WIDTHS and query.shape[2] <= MAX_QUERIES


def prepare() -> None:
    """Load the kernels if this machine can; tried once per process.

    Raises:
        InvalidOption: ``FLORENCE2_NATIVE`` is neither 0 nor 1.
    """
    global _kernels, _origin
    with _preparing:
        if _origin is not None:
            return
        if not _is_wanted(os.environ.get(SWITCH, "")):
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


def _is_wanted(switch: str) -> bool:
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


def _tokens(tokens: Sequence[int]) -> NDArray[np.int64]:
    """Numbers of tokens as an array; those of a range are not taken one by one."""
    is_range = isinstance(tokens, range)
    return np.arange(tokens.start, tokens.stop, tokens.step) if is_range else np.array(tokens, np.int64)


def _strides(tensor: Tensor) -> ctypes.Array[ctypes.c_int64]:
    """Strides of the first three dimensions; the last dimension is always contiguous."""
    return (ctypes.c_int64 * 3)(*tensor.stride()[:3])


def _renew_lock() -> None:
    """Replace the lock in a forked child process, where the thread that may have held it does not exist."""
    global _preparing
    _preparing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
