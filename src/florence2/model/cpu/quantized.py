"""Linear layers in 8-bit integers, by the matrix routines of oneDNN that come with PyTorch.

In: weights of any floating-point type. Out: a layer that replaces ``florence2.model.linear.Linear``. Knows nothing of models.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence2.model.cpu import kernels
from florence2.model.cpu.routines import QuantizedRows, Sums
from florence2.model.linear import LinearLayer

if TYPE_CHECKING:
    from jaxtyping import Float

CHANNELS = 4096  # output channels that are quantized at a time


def channel_scales(weight: Float[Tensor, "outputs inputs"]) -> Float[Tensor, " outputs"]:
    """What 8-bit weights of each output are multiplied by, in float32: their range over 127."""
    largest = torch.maximum(-weight.amin(dim=1), weight.amax(dim=1)).float()  # aminmax takes ten times as long, here and below
    # The smallest scale keeps a channel of zeros from dividing by zero.
    return (largest / 127).clamp(min=torch.finfo(torch.float32).tiny)


class QuantizedLinear(LinearLayer):
    """``Linear`` in 8-bit integers: weights scaled by output channel, inputs by the range of each row, sums in 32 bits.

    A row's output never depends on the other rows. With the compiled kernels, everything between two products is one pass over the rows:
    norm and quantization before them, bias, GELU, sum with a residual and the quantization for the next layer behind them.

    Args:
        weight: ``[outputs, inputs]``, of any floating-point type; not kept.
        bias: ``[outputs]`` or None.
        rows: the number of rows that the layout is optimised for; any other number works too.
    """

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"] | None, *, rows: int) -> None:
        super().__init__()
        self.scales = channel_scales(weight.detach())
        quantized, self.weight_sums = torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight))
        parts = (tensor.split(CHANNELS) for tensor in (weight.detach(), self.scales.unsqueeze(1), quantized, self.weight_sums.unsqueeze(1)))
        for values, scales, levels, sums in zip(*parts, strict=True):  # a part at a time: the head's table is large
            whole = (values.float() / scales).round_()
            levels.copy_(whole)
            torch.sum(whole.mul_(scales), dim=1, keepdim=True, out=sums)
        self.weight = torch.ops.onednn.qlinear_prepack(quantized, [rows, weight.shape[1]])
        self.zero_points = torch.zeros(len(self.scales), dtype=torch.long)
        self.bias = None if bias is None else bias.detach().float()
        # Without instructions for 8-bit products, the sum of two products would overflow 16 bits, so inputs are limited to 7 bits.
        self.top = 255 if has_int8_products() else 127

    def forward(  # type: ignore[override]
        self,
        hidden: Tensor | QuantizedRows,
        *,
        norm: nn.LayerNorm | None = None,
        gelu: bool = False,
        add_to: Tensor | None = None,
        into: nn.Module | None = None,
    ) -> Tensor | QuantizedRows:
        """The output of ``Linear.forward``, in the type of ``hidden``; rows in 8 bits if ``into`` is such a layer."""
        compiled = kernels.loaded()
        if isinstance(hidden, Tensor) and compiled is None:
            return self._by_pytorch(hidden, norm, gelu=gelu, add_to=add_to)
        assert compiled is not None  # rows in 8 bits come from them
        rows = compiled.quantize_rows(_with_dense_rows(hidden), self.top, norm) if isinstance(hidden, Tensor) else hidden
        sums = Sums(self._product(rows.levels), rows, self.weight_sums, self.bias, gelu)
        if isinstance(into, QuantizedLinear):
            return compiled.requantize_rows(sums, into.top)
        if add_to is not None and add_to.is_contiguous():
            return compiled.finish_rows(sums, add_to, add_to)
        like = add_to if add_to is not None else hidden if isinstance(hidden, Tensor) else sums.sums
        out = compiled.finish_rows(sums, sums.sums if like.dtype == torch.float32 else torch.empty_like(sums.sums, dtype=like.dtype))
        return out if add_to is None else add_to.add_(out)

    def _by_pytorch(self, hidden: Tensor, norm: nn.LayerNorm | None, *, gelu: bool, add_to: Tensor | None) -> Tensor:
        """The output without compiled kernels."""
        levels, scales, lows = quantize_rows(hidden if norm is None else norm(hidden), self.top)
        out = self._product(levels) * scales.unsqueeze(-1) + lows.unsqueeze(-1) * self.weight_sums
        out = out if self.bias is None else out + self.bias
        out = (F.gelu(out) if gelu else out).to(hidden.dtype)
        return out if add_to is None else add_to.add_(out)

    def _product(self, levels: Tensor) -> Float[Tensor, "*rows outputs"]:
        """Levels times weights."""
        return torch.ops.onednn.qlinear_pointwise(
            *(levels, 1.0, 0, self.weight, self.scales, self.zero_points, None),
            *(1.0, 0, torch.float32, "none", [], "none"),
        )


def _with_dense_rows(values: Tensor) -> Tensor:
    return values if values.stride(-1) == 1 else values.contiguous()


def quantize_rows(values: Float[Tensor, "*rows width"], top: int) -> QuantizedRows:
    """Rows of ``values`` in levels 0 to ``top``."""
    values = torch.nan_to_num(values.float())
    lows, highs = values.amin(dim=-1, keepdim=True), values.amax(dim=-1, keepdim=True)
    scales = ((highs - lows) / top).clamp(min=1e-30)
    levels = ((values - lows) / scales).round_().clamp_(0, top).to(torch.uint8)
    return QuantizedRows(levels, scales.squeeze(-1), lows.squeeze(-1))


@cache
def can_quantize() -> bool:
    """Whether this PyTorch has routines for 8-bit matrices."""
    try:
        layer = QuantizedLinear(torch.eye(16), torch.zeros(16), rows=1)
        given = torch.linspace(-2, 1, 32).view(2, 16)
        return torch.allclose(layer(given, gelu=True), F.gelu(given), atol=0.05)
    except (RuntimeError, AttributeError):
        return False


def has_int8_products() -> bool:
    """Whether the processor has instructions that multiply 8-bit matrices."""
    return torch.cpu._is_vnni_supported()
