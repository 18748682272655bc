"""The linear layer that every part of the model is made of.

It may be followed by GELU and by an addition. Said in one call, the three can become one pass where the processor has a routine for
it (``florence2.model.cpu.packed``); here they are what they say, in plain PyTorch, and can be trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float


class Linear(nn.Linear):
    """``residual + gelu(hidden @ weight.T + bias)``, GELU and residual where they are asked for."""

    def forward(  # type: ignore[override]
        self, hidden: Float[Tensor, "*batch inputs"], *, gelu: bool = False, residual: Float[Tensor, "*batch outputs"] | None = None
    ) -> Float[Tensor, "*batch outputs"]:
        """The layer's output, in the type of ``hidden``."""
        out = self.product(hidden)
        if gelu:
            out = F.gelu(out)
        return out if residual is None else residual + out

    def product(self, hidden: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """``hidden @ weight.T + bias``."""
        return F.linear(hidden, self.weight, self.bias)
