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
    """

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"] | None, *, rows: int) -> None:
        super().__init__()
        low, high = torch.aminmax(weight.detach(), dim=1)
        # The smallest scale keeps a channel of zeros from dividing by zero.
        self.scales = (torch.maximum(-low, high).float() / 127).clamp(min=torch.finfo(torch.float32).tiny)
        quantized = torch.empty(weight.shape, dtype=torch.int8)
        parts = (tensor.split(CHANNELS) for tensor in (weight.detach(), self.scales.unsqueeze(1), quantized))
        for values, scales, levels in zip(*parts, strict=True):  # a part at a time: the head's table is large
            levels.copy_((values.float() / scales).round_())
        self.weight = torch.ops.onednn.qlinear_prepack(quantized, [rows, weight.shape[1]])
        self.zero_points = torch.zeros(len(self.scales), dtype=torch.long)
        self.bias = None if bias is None else bias.detach().float()
        # Without instructions for 8-bit products, the sum of two products would overflow 16 bits, so inputs are limited to 7 bits.
        self.levels = 255 if has_int8_products() else 127

    def forward(self, hidden: Tensor, *, gelu: bool = False, residual: Tensor | None = None) -> Tensor:
        """The output of ``Linear.forward``, in the type of ``hidden``."""
        compiled = kernels.loaded()
        quantize = quantize_by_range if compiled is None else compiled.quantize
        out = torch.ops.onednn.qlinear_pointwise(
            *quantize(hidden, self.levels),
            *(self.weight, self.scales, self.zero_points, self.bias),
            *(1.0, 0, hidden.dtype, "gelu" if gelu else "none", [], "none"),
        )
        return out if residual is None else out.add_(residual)


def quantize_by_range(values: Float[Tensor, "*shape"], levels: int) -> tuple[Tensor, float, int]:
    """``values`` as ``(uint8 - zero_point) * scale``, in levels 0 to ``levels`` that span the range of the values.

    Zero is always represented exactly.

    Returns:
        The 8-bit levels, the scale and the zero point.
    """
    values = torch.nan_to_num(values.float())
    low, high = (float(end) for end in torch.aminmax(values))
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / levels, 1e-30)
    zero_point = round(-low / scale)
    return (values / scale).add_(zero_point).round_().clamp_(0, levels).to(torch.uint8), scale, zero_point


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
