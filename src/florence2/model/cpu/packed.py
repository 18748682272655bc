"""Linear layers whose weights are packed: laid out once for the matrix routines of the processor.

PyTorch's plain layers lay their weights out again at every call, which costs more than the product itself when there are few rows, and
they apply GELU in a second pass. oneDNN's routines, which come with PyTorch, take packed weights and apply GELU in the same pass. A
packed model can't be trained or saved. Where the routines are missing, the plain layers stay: answers are the same, only slower.

``packing.py`` puts these layers into a model. Knows nothing of what a layer is part of.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from florence2.model.linear import LinearLayer

if TYPE_CHECKING:
    from jaxtyping import Float


class PackedLinear(LinearLayer):
    """``Linear`` by oneDNN, in the type of its weights.

    Args:
        weight: ``[outputs, inputs]``, float32 or bfloat16; not kept.
        bias: ``[outputs]`` or None.
        rows: the number of rows that the layout is optimised for; any other number works too.
    """

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"] | None, *, rows: int) -> None:
        super().__init__()
        # Plain attributes: packed tensors can be neither moved nor saved.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)
        self.bias = None if bias is None else bias.detach()

    def activated(self, hidden: Tensor, *, gelu: bool) -> Tensor:
        """The product, and GELU in the same pass."""
        return torch.ops.mkldnn._linear_pointwise(hidden, self.weight, self.bias, "gelu" if gelu else "none", [], "none")


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this PyTorch and this processor have routines for packed weights of a type."""
    try:
        layer = PackedLinear(torch.eye(16, dtype=dtype), torch.zeros(16, dtype=dtype), rows=1)
        given = torch.linspace(-2, 2, 32, dtype=dtype).view(2, 16)
        expected = F.gelu(given.float()) + given.float()
        return torch.allclose(layer(given, gelu=True, add_to=given.clone()).float(), expected, atol=0.05)
    except (RuntimeError, AttributeError):  # no such operator, or none for this type
        return False


def has_bf16_products() -> bool:
    """Whether the processor has instructions that multiply bfloat16 matrices."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
