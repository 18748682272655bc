"""A model's linear layers replaced by packed ones, in floating point or in 8 bits, while its weights are read.

In: a model without weights and what reads them. Out: the same model, which computes faster on a CPU and can't be trained or saved any more.
Knows the model's modules; nothing of files, prompts or requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from florence2.model.bart import Attention
from florence2.model.cpu.packed import PackedLinear
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
