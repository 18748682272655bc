"""The linear layer of all parts of the model, with an optional GELU and residual.

The three operations are one call, so that a packed layer (``florence2.model.cpu.packed``) can compute them in one pass. This class
computes them one after the other in plain PyTorch, and can be trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float


class Linear(nn.Linear):
    """``residual + gelu(hidden @ weight.T + bias)``, where GELU and residual are optional."""

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
