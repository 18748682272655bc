"""The linear layer of all parts of the model, with an optional norm before it, and an optional GELU and residual behind it.

These operations are one call, so that a packed layer (``florence2.model.cpu.packed``) can compute them in one pass. ``LinearLayer`` is the
call, for layers of any kind; ``Linear`` computes it in plain PyTorch, and can be trained.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float


class LinearLayer(nn.Module):
    """``add_to + gelu(norm(hidden) @ weight.T + bias)``, where all but the product is optional."""

    def forward(
        self,
        hidden: Float[Tensor, "*batch inputs"],
        *,
        norm: nn.LayerNorm | None = None,
        gelu: bool = False,
        add_to: Float[Tensor, "*batch outputs"] | None = None,
        into: nn.Module | None = None,
    ) -> Float[Tensor, "*batch outputs"]:
        """The layer's output.

        Args:
            hidden: the input.
            norm: applied to the input first.
            gelu: whether GELU follows the product.
            add_to: what the output is added to, of the output's type; the sum is written to it where no gradient is computed.
            into: the layer that alone reads the output. A layer in 8 bits hands over what such a layer reads; others do not need it.

        Returns:
            The output in the type of ``hidden``.
        """
        return added(self.activated(hidden if norm is None else norm(hidden), gelu=gelu), add_to)

    @abstractmethod
    def activated(self, hidden: Float[Tensor, "*batch inputs"], *, gelu: bool) -> Float[Tensor, "*batch outputs"]:
        """``hidden @ weight.T + bias``, or GELU of that."""


class Linear(LinearLayer, nn.Linear):  # type: ignore[override]
    """``LinearLayer`` in plain PyTorch."""

    def activated(self, hidden: Float[Tensor, "*batch inputs"], *, gelu: bool) -> Float[Tensor, "*batch outputs"]:
        """``hidden @ weight.T + bias``, or GELU of that."""
        out = self.product(hidden)
        return F.gelu(out) if gelu else out

    def product(self, hidden: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """``hidden @ weight.T + bias``."""
        # Contiguous: how PyTorch multiplies other inputs, and so the last bits, depends on whether the weight is being trained.
        return F.linear(hidden.contiguous(), self.weight, self.bias)


def added(out: Tensor, add_to: Tensor | None) -> Tensor:
    """``add_to + out``, written to ``add_to`` where no gradient is computed; ``out`` where there is nothing to add to."""
    if add_to is None:
        return out
    return add_to + out if torch.is_grad_enabled() else add_to.add_(out)
