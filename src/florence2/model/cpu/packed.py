"""Linear layers whose weights are packed: laid out once for the matrix routines of the processor.

PyTorch's plain layers lay their weights out again at every call, which costs more than the product itself when there are few rows, and
they apply GELU in a second pass. oneDNN's routines, which come with PyTorch, take packed weights and apply GELU in the same pass. A
packed model can't be trained or saved. Where the routines are missing, the plain layers stay: answers are the same, only slower.

``pack_layers`` and ``pack_head`` pack a model on a CPU, in floating point or in 8 bits. Knows the model's modules; nothing of files,
prompts or requests.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence2.model.bart import Attention
from florence2.model.cpu.quantized import QuantizedLinear
from florence2.model.florence2 import Florence2
from florence2.model.linear import Linear
from florence2.model.precision import Precision
from florence2.model.refined_head import RefinedHead

if TYPE_CHECKING:
    from jaxtyping import Float

ReadTensor = Callable[[str], Tensor]

# The number of rows that a layer's layout is optimised for; any other number works too.
TOWER_ROWS, TEXT_ROWS = 2304, 48


class PackedLinear(nn.Module):
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

    def forward(self, hidden: Tensor, *, gelu: bool = False, residual: Tensor | None = None) -> Tensor:
        """The output of ``Linear.forward``."""
        out = torch.ops.mkldnn._linear_pointwise(hidden, self.weight, self.bias, "gelu" if gelu else "none", [], "none")
        return out if residual is None else out.add_(residual)


def pack_layers(model: Florence2, precision: Precision, read: ReadTensor) -> None:
    """Replace the linear layers of ``model``, which has no weights yet, by packed ones; one layer's weights are read at a time.

    Args:
        model: changed in place; the weights of its other modules are still to be loaded.
        precision: the types that the layers compute in.
        read: returns the tensor for a name of ``model.state_dict()``.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, Attention) and not name.endswith("encoder_attn"):
            parts = [f"{name}.{part}_proj" for part in "qkv"]
            weight, bias = (torch.cat([read(f"{part}.{kind}") for part in parts]) for kind in ("weight", "bias"))
            module.qkv_proj = _packed(weight, bias, precision, rows=TEXT_ROWS)
            del module.q_proj, module.k_proj, module.v_proj
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear) and not name.endswith("lm_head"):
            bias = None if module.bias is None else read(f"{name}.bias")
            rows = TOWER_ROWS if name.startswith("vision_tower") else TEXT_ROWS
            parent, _, own_name = name.rpartition(".")
            setattr(model.get_submodule(parent), own_name, _packed(read(f"{name}.weight"), bias, precision, rows=rows))


def pack_head(model: Florence2, precision: Precision, table: Float[Tensor, "vocabulary width"]) -> None:
    """Replace the head of ``model`` by a packed one.

    Args:
        model: changed in place; its token tables are loaded.
        precision: the types that the model computes in.
        table: the head's weights in the text model's type.
    """
    layer = _packed(table, None, precision, rows=TEXT_ROWS)
    text = model.language_model
    text.packed_head = layer if precision.is_exact else RefinedHead(layer, text.head_weight)


def _packed(weight: Tensor, bias: Tensor | None, precision: Precision, *, rows: int) -> nn.Module:
    return QuantizedLinear(weight, bias, rows=rows) if precision.is_quantized else PackedLinear(weight, bias, rows=rows)


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this PyTorch and this processor have routines for packed weights of a type."""
    try:
        layer = PackedLinear(torch.eye(16, dtype=dtype), torch.zeros(16, dtype=dtype), rows=1)
        given = torch.linspace(-2, 2, 32, dtype=dtype).view(2, 16)
        expected = F.gelu(given.float()) + given.float()
        return torch.allclose(layer(given, gelu=True, residual=given.clone()).float(), expected, atol=0.05)
    except (RuntimeError, AttributeError):  # no such operator, or none for this type
        return False


def has_bf16_products() -> bool:
    """Whether the processor has instructions that multiply bfloat16 matrices."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
