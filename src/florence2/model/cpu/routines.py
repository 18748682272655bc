"""The kernels (``kernels.cpp``, ``quantizing.cpp``, ``decoder_step.cpp``, ``choosing.cpp``) of one library as functions of tensors.

Knows nothing of where libraries come from.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float, Int

STEP_ROUTINES = ("florence2_decoder_step", "florence2_multiply")  # called by panels.py and model/decoder_step.py
TYPES = (torch.float32, torch.bfloat16)  # supported by attend, with heads of these widths
WIDTHS = (32, 64)
MAX_QUERIES = 16  # per entry; with more, matrix products are faster


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


def _tokens(tokens: Sequence[int]) -> NDArray[np.int64]:
    """Numbers of tokens as an array; those of a range are not taken one by one."""
    is_range = isinstance(tokens, range)
    return np.arange(tokens.start, tokens.stop, tokens.step) if is_range else np.array(tokens, np.int64)


def _strides(tensor: Tensor) -> ctypes.Array[ctypes.c_int64]:
    """Strides of the first three dimensions; the last dimension is always contiguous."""
    return (ctypes.c_int64 * 3)(*tensor.stride()[:3])
