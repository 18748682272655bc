"""A model's linear layers replaced by packed ones, in floating point or in 8 bits, while its weights are read.

In: a model without weights and what reads them. Out: the same model, which computes faster on a CPU and can't be trained or saved any more.
Knows the model's modules; nothing of files, prompts or requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from florence2.model.adapting import HEAD_NAME
from florence2.model.bart import POSITION_OFFSET, Attention, Bart
from florence2.model.cpu import kernels
from florence2.model.cpu.packed import PackedLinear
from florence2.model.cpu.panels import PanelLinear, can_lay_out
from florence2.model.cpu.quantized import QuantizedLinear
from florence2.model.cpu.weight_memory import WeightMemory
from florence2.model.decoder_step import PRODUCTS, DecoderStep, StepEmbedding, StepLayer
from florence2.model.florence2 import Florence2
from florence2.model.linear import Linear
from florence2.model.precision import Precision
from florence2.model.refined_head import REFINED, RefinedHead
from florence2.model.step_check import is_sound

if TYPE_CHECKING:
    from jaxtyping import Float

ReadTensor = Callable[[str], Tensor]

# The number of rows that a layer's layout is optimised for; any other number works too.
TOWER_ROWS, TEXT_ROWS = 2304, 48
_DECODER, _HEAD = "language_model.decoder.", "head"
# Layers of the decoder that are multiplied once for each request, with hundreds of positions of its prompt.
_ONCE_A_REQUEST = ("encoder_attn.k_proj", "encoder_attn.v_proj")


def pack_layers(model: Florence2, precision: Precision, read: ReadTensor) -> None:
    """Replace the linear layers of ``model``, which has no weights yet, by packed ones; one layer's weights are read at a time.

    Args:
        model: changed in place; the weights of its other modules are still to be loaded.
        precision: the types that the layers compute in.
        read: returns the tensor for a name of ``model.state_dict()``.
    """
    memory = WeightMemory()
    for name, module in list(model.named_modules()):
        if isinstance(module, Attention) and not name.endswith("encoder_attn"):
            parts = [f"{name}.{part}_proj" for part in "qkv"]
            weight, bias = (torch.cat([read(f"{part}.{kind}") for part in parts]) for kind in ("weight", "bias"))
            module.qkv_proj = _packed(f"{name}.qkv_proj", weight, bias, precision, memory)
            del module.q_proj, module.k_proj, module.v_proj
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear) and not name.endswith("lm_head"):
            bias = None if module.bias is None else read(f"{name}.bias")
            parent, _, own_name = name.rpartition(".")
            setattr(model.get_submodule(parent), own_name, _packed(name, read(f"{name}.weight"), bias, precision, memory))


def pack_head(precision: Precision, table: Float[Tensor, "vocabulary width"]) -> nn.Module:
    """The layer for the head's weights, ``table``, which are in the text model's type."""
    return _packed(f"{_DECODER}{_HEAD}", table, None, precision, WeightMemory())


def attach_head(model: Florence2, precision: Precision, layer: nn.Module) -> None:
    """Replace the head of ``model`` by a packed one, and have the compiled kernels compute its steps where they can.

    Args:
        model: changed in place; all its other weights are loaded.
        precision: the types that the model computes in.
        layer: the result of ``pack_head``.
    """
    text = model.language_model
    text.packed_head = layer if precision.is_exact else RefinedHead(layer, text.head_weight)
    if (compiled := kernels.loaded()) is not None and isinstance(layer, PanelLinear):
        text.compiled_step = _compiled_step(text, compiled, layer, model.config.text.decoder_attention_heads, precision)


def _compiled_step(text: Bart, compiled: kernels.Kernels, head: PanelLinear, num_heads: int, precision: Precision) -> DecoderStep:
    table = None if precision.is_exact else text.head_weight
    layers = [StepLayer.of(layer) for layer in text.decoder.layers]  # type: ignore[arg-type]
    positions = text.decoder.embed_positions.weight[POSITION_OFFSET:]
    embedding = StepEmbedding(text.decoder_table, positions, text.scale)
    names = [f"{_DECODER}layers.{number}.{product}" for number in range(len(layers)) for product in PRODUCTS]
    norm = text.decoder.layernorm_embedding
    return DecoderStep(compiled, layers, embedding, norm, head, num_heads, table, REFINED, [*names, HEAD_NAME])


def _packed(name: str, weight: Tensor, bias: Tensor | None, precision: Precision, memory: WeightMemory) -> nn.Module:
    """The layer for a name of the model's state; those that decoder steps go through are laid out for the compiled kernels."""
    compiled = kernels.loaded()
    in_steps = name.startswith(_DECODER) and not name.endswith(_ONCE_A_REQUEST)
    dtype = precision.decoder_weights
    if in_steps and compiled is not None and can_lay_out(dtype, weight.shape[1]) and is_sound(compiled, dtype):
        return PanelLinear(weight, bias, dtype, compiled, memory)
    rows = TOWER_ROWS if name.startswith("vision_tower") else TEXT_ROWS
    return QuantizedLinear(weight, bias, rows=rows) if precision.is_quantized else PackedLinear(weight, bias, rows=rows)
