"""Linear layers of the decoder, whose few rows are multiplied by weights that lie in panels (``products.h``).

In: weights of any floating-point type. Out: a layer that replaces ``florence2.model.linear.Linear``, with weights in float32, bfloat16 or 8
bits by output channel. Its inputs and outputs are float32; weights of 8 bits are multiplied by rows that are rounded to 15 bits, each with
a scale of its own. So a row's output never depends on the other rows. Knows nothing of models.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from florence2.model.cpu.quantized import channel_scales
from florence2.model.cpu.routines import Kernels
from florence2.model.cpu.weight_memory import WeightMemory
from florence2.model.linear import LinearLayer

if TYPE_CHECKING:
    from jaxtyping import Float

PANEL = 16  # outputs of a panel
CHANNELS = 4096  # output channels that are laid out at a time; a multiple of a panel's
PAIRS = {torch.bfloat16: torch.int32, torch.int8: torch.int16}  # two inputs lie side by side, which are moved as one number
WEIGHT_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}  # by their numbers in products.h


class LinearStruct(ctypes.Structure):
    """``Linear`` of ``products.h``."""

    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("inputs", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("type", ctypes.c_int32),
    )


class PanelLinear(LinearLayer):
    """``Linear`` by the compiled kernels.

    Args:
        weight: ``[outputs, inputs]``, of any floating-point type, with an even number of inputs; not kept.
        bias: ``[outputs]`` or None.
        dtype: the type that the weights are kept in, of ``WEIGHT_TYPES``.
        kernels: what computes.
        memory: where the weights are to lie; None: in some of their own.
    """

    def __init__(
        self,
        weight: Float[Tensor, "outputs inputs"],
        bias: Float[Tensor, " outputs"] | None,
        dtype: torch.dtype,
        kernels: Kernels,
        memory: WeightMemory | None = None,
    ) -> None:
        super().__init__()
        self.outputs, self.inputs = weight.shape
        panels = -(-self.outputs // PANEL)
        # Plain attributes: a packed model can be neither moved nor saved.
        self.weight = (memory or WeightMemory()).empty((panels, self.inputs * PANEL), dtype)
        self.scales = torch.ones(panels * PANEL) if dtype == torch.int8 else None
        self.bias = None if bias is None else torch.zeros(panels * PANEL)
        if self.bias is not None and bias is not None:
            self.bias[: self.outputs] = bias.detach()
        for first in range(0, self.outputs, CHANNELS):  # a part at a time: the head's table is large
            self._lay_out(weight.detach()[first : first + CHANNELS], first)
        self._kernels = kernels

    def _lay_out(self, part: Tensor, first: int) -> None:
        """Put some outputs, of which ``first`` is the number of the first, into their panels."""
        if self.scales is not None:
            scales = channel_scales(part)
            self.scales[first : first + len(part)] = scales
            part = (part.float() / scales.unsqueeze(1)).round_()
        panels = self.weight[first // PANEL : -(-(first + len(part)) // PANEL)]
        padded = part.to(self.weight.dtype)
        if len(part) % PANEL:
            padded = torch.cat([padded, padded.new_zeros(-len(part) % PANEL, self.inputs)])
        unit = PAIRS.get(self.weight.dtype, self.weight.dtype)
        laid_out = padded.view(unit).view(len(panels), PANEL, -1).transpose(1, 2)
        panels.view(unit).view(laid_out.shape).copy_(laid_out)

    @property
    def struct(self) -> LinearStruct:
        """The layer as the kernels know it, valid for as long as the layer lives."""
        scales, bias = (None if values is None else values.data_ptr() for values in (self.scales, self.bias))
        return LinearStruct(self.weight.data_ptr(), scales, bias, self.inputs, self.outputs, WEIGHT_TYPES[self.weight.dtype])

    def activated(self, hidden: Tensor, *, gelu: bool) -> Tensor:
        """The product, and GELU in the same pass, in the type of ``hidden``."""
        given = hidden.float().contiguous()
        out = given.new_empty(*hidden.shape[:-1], self.outputs)
        rows, threads = given.numel() // self.inputs, torch.get_num_threads()
        memory = torch.empty(threads * PANEL * self.inputs + rows * (self.inputs + 1))
        self._kernels.library.florence2_multiply(
            ctypes.byref(self.struct),
            *(ctypes.c_void_p(given.data_ptr()), ctypes.c_int64(rows), ctypes.c_void_p(out.data_ptr()), int(gelu)),
            *(ctypes.c_void_p(memory.data_ptr()), threads),
        )
        return out.to(hidden.dtype)


def can_lay_out(dtype: torch.dtype, inputs: int) -> bool:
    """Whether there can be a layer for weights of this type and so many inputs."""
    return dtype in WEIGHT_TYPES and inputs % 2 == 0
