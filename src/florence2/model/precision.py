"""The precision that a model computes in: a floating-point type for each of its two parts, and whether linear layers are in 8 bits.

A plain value. ``florence2.engine`` chooses it for a device, ``florence2.weights`` loads weights in it, ``florence2.model.cpu`` packs
layers in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """The types that a model computes in.

    Attributes:
        tower: the floating-point type of the vision tower.
        text: the floating-point type of the text model.
        is_quantized: linear layers multiply 8-bit integers.
        decoder: the type of the decoder's weights, where it differs from that of the text model (and its layers are not quantized).
    """

    tower: torch.dtype = torch.float32
    text: torch.dtype = torch.float32
    is_quantized: bool = False
    decoder: torch.dtype | None = None

    @property
    def decoder_weights(self) -> torch.dtype:
        """The type in which the compiled decoder keeps the weights of its linear layers; it computes in float32 with all of them."""
        return torch.int8 if self.is_quantized else self.decoder or self.text

    @property
    def name(self) -> str:
        """The name that users write: fp32, bf16, fp16 or int8."""
        return {torch.int8: "int8", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.decoder_weights]

    @property
    def is_exact(self) -> bool:
        """Whether the text model's logits are computed in float32 throughout."""
        return self.decoder_weights == torch.float32
