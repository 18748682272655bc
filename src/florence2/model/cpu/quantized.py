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

if TYPE_CHECKING:
    from jaxtyping import Float

CHANNELS = 4096  # output channels that are quantized at a time


class QuantizedLinear(nn.Module):
    """``Linear`` in 8-bit integers: weights scaled by output channel, inputs by their range at each call, sums in 32 bits.

    Args:
        weight: ``[outputs, inputs]``, of any floating-point type; not kept.
        bias: ``[outputs]`` or None.
        rows: the number of rows that the layout is optimised for; any other number works too.
        by_row: each row of the inputs has a range of its own, so that its output does not depend on the other rows; slower with many rows.
    """

    def __init__(
        self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"] | None, *, rows: int, by_row: bool = False
    ) -> None:
        super().__init__()
        low, high = torch.aminmax(weight.detach(), dim=1)
        # The smallest scale keeps a channel of zeros from dividing by zero.
        self.scales = (torch.maximum(-low, high).float() / 127).clamp(min=torch.finfo(torch.float32).tiny)
        quantized = torch.empty(weight.shape, dtype=torch.int8)
        parts = (tensor.split(CHANNELS) for tensor in (weight.detach(), self.scales.unsqueeze(1), quantized))
        for values, scales, levels in zip(*parts, strict=True):  # a part at a time: the head's table is large
            levels.copy_((values.float() / scales).round_())
        self.sums = quantized.sum(dim=1).float() * self.scales if by_row else None
        self.weight = torch.ops.onednn.qlinear_prepack(quantized, [rows, weight.shape[1]])
        self.zero_points = torch.zeros(len(self.scales), dtype=torch.long)
        self.bias = None if bias is None else bias.detach().float()
        # Without instructions for 8-bit products, the sum of two products would overflow 16 bits, so inputs are limited to 7 bits.
        self.levels = 255 if has_int8_products() else 127

    def forward(self, hidden: Tensor, *, gelu: bool = False, residual: Tensor | None = None) -> Tensor:
        """The output of ``Linear.forward``, in the type of ``hidden``."""
        if self.sums is not None:
            out = self._product_by_row(hidden, self.sums)
            out = (F.gelu(out) if gelu else out).to(hidden.dtype)
        else:
            compiled = kernels.loaded()
            quantize = quantize_by_range if compiled is None else compiled.quantize
            out = self._product(*quantize(hidden, self.levels), self.bias, hidden.dtype, gelu=gelu)
        return out if residual is None else out.add_(residual)

    def _product(
        self, levels: Tensor, scale: float, zero_point: int, bias: Tensor | None, dtype: torch.dtype, *, gelu: bool = False
    ) -> Tensor:
        return torch.ops.onednn.qlinear_pointwise(
            *(levels, scale, zero_point, self.weight, self.scales, self.zero_points, bias),
            *(1.0, 0, dtype, "gelu" if gelu else "none", [], "none"),
        )

    def _product_by_row(self, hidden: Tensor, sums: Tensor) -> Tensor:
        """The output in float32: a row is ``(levels - zero_point) * scale``, so both are applied to its sums of levels afterwards."""
        levels, scales, zero_points = quantize_rows(hidden, self.levels)
        out = (self._product(levels, 1.0, 0, None, torch.float32) - zero_points * sums) * scales
        return out if self.bias is None else out + self.bias


def quantize_by_range(values: Float[Tensor, "*shape"], levels: int) -> tuple[Tensor, float, int]:
    """``values`` as ``(uint8 - zero_point) * scale``, in levels 0 to ``levels`` that span the range of the values.

    Zero is always represented exactly.

    Returns:
        The 8-bit levels, the scale and the zero point.
    """
    quantized, scales, zero_points = quantize_rows(values.reshape(1, -1), levels)
    return quantized.view(values.shape), scales.item(), int(zero_points.item())


def quantize_rows(values: Float[Tensor, "*rows width"], levels: int) -> tuple[Tensor, Float[Tensor, "*rows 1"], Float[Tensor, "*rows 1"]]:
    """``quantize_by_range`` of each row: its 8-bit levels, its scale and its zero point."""
    values = torch.nan_to_num(values.float())
    low, high = torch.aminmax(values, dim=-1, keepdim=True)
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scales = ((high - low) / levels).clamp(min=1e-30)
    zero_points = (-low / scales).round()
    return (values / scales).add_(zero_points).round_().clamp_(0, levels).to(torch.uint8), scales, zero_points


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
