"""Linear layers with their weights laid out for the processor's matrix routines, in the model's own numbers or in 8 bits.

``pack`` turns a loaded model on a CPU into one that is only good for answering: PyTorch's plain layers lay their weights out anew at
every call, which costs more than the product where rows are few, and can't do GELU while the result is still in a register. oneDNN's
routines, which come with PyTorch, do both. Where they are missing the plain layers stay, and nothing but speed is lost.

Knows the model's modules; nothing of files, prompts or requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence2.model.bart import Attention
from florence2.model.cpu import kernels
from florence2.model.florence2 import Florence2
from florence2.model.linear import Linear
from florence2.model.top_k import largest

if TYPE_CHECKING:
    from jaxtyping import Float

ReadTensor = Callable[[str], Tensor]

# For how many rows a layout is chosen; it serves all others as well.
TOWER_ROWS, TEXT_ROWS = 2304, 48
CHANNELS = 4096  # that are quantised at a time
REFINED = 64  # candidates of a row whose logits are computed again, exactly


@dataclass(frozen=True)
class Numbers:
    """In which numbers a model computes.

    Attributes:
        tower: the floating-point type of the vision tower.
        text: the floating-point type of the text model.
        is_quantized: linear layers are in 8-bit integers.
    """

    tower: torch.dtype = torch.float32
    text: torch.dtype = torch.float32
    is_quantized: bool = False

    @property
    def name(self) -> str:
        """What users call them."""
        return "int8" if self.is_quantized else {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.text]

    @property
    def is_exact(self) -> bool:
        """Whether the text model's logits are computed in float32 throughout."""
        return self.text == torch.float32 and not self.is_quantized


class PackedLinear(nn.Module):
    """``Linear`` by oneDNN, in the type of its weights.

    Args:
        weight: ``[outputs, inputs]``, float32 or bfloat16; not kept.
        bias: ``[outputs]`` or None.
        rows: how many rows the layout is chosen for.
    """

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"] | None, *, rows: int) -> None:
        super().__init__()
        # Plain attributes: packed tensors can be neither moved nor saved.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)
        self.bias = None if bias is None else bias.detach()

    def forward(self, hidden: Tensor, *, gelu: bool = False, residual: Tensor | None = None) -> Tensor:
        """As ``Linear.forward``."""
        out = torch.ops.mkldnn._linear_pointwise(hidden, self.weight, self.bias, "gelu" if gelu else "none", [], "none")
        return out if residual is None else out.add_(residual)


class QuantizedLinear(nn.Module):
    """``Linear`` in 8-bit integers by oneDNN: weights by output channel, inputs by their range at each call, sums in 32 bits.

    Args:
        weight: ``[outputs, inputs]``, of any floating-point type; not kept.
        bias: ``[outputs]`` or None.
        rows: how many rows the layout is chosen for.
    """

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"] | None, *, rows: int) -> None:
        super().__init__()
        low, high = torch.aminmax(weight.detach(), dim=1)
        # The smallest scale keeps a channel of zeros from dividing by zero.
        self.scales = (torch.maximum(-low, high).float() / 127).clamp(min=torch.finfo(torch.float32).tiny)
        quantized = torch.empty(weight.shape, dtype=torch.int8)
        parts = (tensor.split(CHANNELS) for tensor in (weight.detach(), self.scales.unsqueeze(1), quantized))
        for values, scales, levels in zip(*parts, strict=True):  # some at a time: the head's table is large
            levels.copy_((values.float() / scales).round_())
        self.weight = torch.ops.onednn.qlinear_prepack(quantized, [rows, weight.shape[1]])
        self.zero_points = torch.zeros(len(self.scales), dtype=torch.long)
        self.bias = None if bias is None else bias.detach().float()
        # Without instructions for 8-bit products, sums of two would overflow 16 bits: inputs then keep to 7 bits.
        self.levels = 255 if has_int8_products() else 127

    def forward(self, hidden: Tensor, *, gelu: bool = False, residual: Tensor | None = None) -> Tensor:
        """As ``Linear.forward``, in the type of ``hidden`` outside."""
        compiled = kernels.loaded()
        quantize = quantize_by_range if compiled is None else compiled.quantize
        out = torch.ops.onednn.qlinear_pointwise(
            *quantize(hidden, self.levels),
            *(self.weight, self.scales, self.zero_points, self.bias),
            *(1.0, 0, hidden.dtype, "gelu" if gelu else "none", [], "none"),
        )
        return out if residual is None else out.add_(residual)


def quantize_by_range(values: Float[Tensor, "*shape"], levels: int) -> tuple[Tensor, float, int]:
    """``values`` as ``(uint8 - zero_point) * scale``, with zero and both ends of their range among what can be said; gives the three."""
    values = torch.nan_to_num(values.float())
    low, high = (float(end) for end in torch.aminmax(values))
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / levels, 1e-30)
    zero_point = round(-low / scale)
    return (values / scale).add_(zero_point).round_().clamp_(0, levels).to(torch.uint8), scale, zero_point


class RefinedHead(nn.Module):
    """A head whose logits come from a fast layer, and those that can matter from the table itself.

    bfloat16 has 8 significant bits: logits around 20 differ by no less than 0.125 in it, far more than what decides between two beams.
    So the ``REFINED`` largest of each row are computed again in float32.

    Args:
        layer: gives all logits, in few bits.
        table: the head's weights, ``[vocabulary, width]``.
    """

    def __init__(self, layer: Callable[[Tensor], Tensor], table: Float[Tensor, "vocabulary width"]) -> None:
        super().__init__()
        self.layer = layer
        self.table = table.detach()

    def forward(self, hidden: Float[Tensor, "rows width"]) -> Float[Tensor, "rows vocabulary"]:
        """Logits in float32."""
        logits = self.layer(hidden).float()
        ids = largest(logits, min(REFINED, logits.shape[-1]))
        exact = (self.table[ids].float() @ hidden.float().unsqueeze(-1)).squeeze(-1)
        return logits.scatter_(1, ids, exact)


def pack_layers(model: Florence2, numbers: Numbers, read: ReadTensor) -> None:
    """Replace the linear layers of ``model``, which has no weights yet, by packed ones. One layer's weights are read at a time.

    Args:
        model: changed in place; what stays of it has still to be loaded.
        numbers: what the layers compute in.
        read: gives the tensor of a name of ``model.state_dict()``.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, Attention) and not name.endswith("encoder_attn"):
            parts = [f"{name}.{part}_proj" for part in "qkv"]
            weight, bias = (torch.cat([read(f"{part}.{kind}") for part in parts]) for kind in ("weight", "bias"))
            module.qkv_proj = _packed(weight, bias, numbers, rows=TEXT_ROWS)
            del module.q_proj, module.k_proj, module.v_proj
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear) and not name.endswith("lm_head"):
            bias = None if module.bias is None else read(f"{name}.bias")
            rows = TOWER_ROWS if name.startswith("vision_tower") else TEXT_ROWS
            parent, _, own_name = name.rpartition(".")
            setattr(model.get_submodule(parent), own_name, _packed(read(f"{name}.weight"), bias, numbers, rows=rows))


def pack_head(model: Florence2, numbers: Numbers, table: Float[Tensor, "vocabulary width"]) -> None:
    """Give ``model``, whose own tables are loaded, a packed head of ``table``, the same values in the numbers that it computes in."""
    layer = _packed(table, None, numbers, rows=TEXT_ROWS)
    text = model.language_model
    text.packed_head = layer if numbers.is_exact else RefinedHead(layer, text.head_weight)


def refine_head(model: Florence2) -> None:
    """Give a model of fewer bits than float32 that is not packed a head that ranks what is close exactly."""
    table = model.language_model.head_weight
    model.language_model.packed_head = RefinedHead(lambda hidden: F.linear(hidden, table), table)


def _packed(weight: Tensor, bias: Tensor | None, numbers: Numbers, *, rows: int) -> nn.Module:
    return QuantizedLinear(weight, bias, rows=rows) if numbers.is_quantized else PackedLinear(weight, bias, rows=rows)


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this PyTorch and processor have packed routines for a type."""
    try:
        layer = PackedLinear(torch.eye(16, dtype=dtype), torch.zeros(16, dtype=dtype), rows=1)
        given = torch.linspace(-2, 2, 32, dtype=dtype).view(2, 16)
        expected = F.gelu(given.float()) + given.float()
        return torch.allclose(layer(given, gelu=True, residual=given.clone()).float(), expected, atol=0.05)
    except (RuntimeError, AttributeError):  # no such operator, or none for this type
        return False


@cache
def can_quantize() -> bool:
    """Whether this PyTorch has routines for 8-bit matrices."""
    try:
        layer = QuantizedLinear(torch.eye(16), torch.zeros(16), rows=1)
        given = torch.linspace(-2, 1, 32).view(2, 16)
        return torch.allclose(layer(given, gelu=True), F.gelu(given), atol=0.05)
    except (RuntimeError, AttributeError):
        return False


def has_bf16_products() -> bool:
    """Whether the processor multiplies bfloat16 matrices by instructions made for it."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def has_int8_products() -> bool:
    """Whether the processor multiplies 8-bit matrices by instructions made for it."""
    return torch.cpu._is_vnni_supported()
