"""An output head that computes its largest logits again in float32.

Models of fewer bits than float32 use it on every device: their search then ranks candidates as a float32 model does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from florence2.model.florence2 import Florence2
from florence2.model.top_k import top_k_indices

if TYPE_CHECKING:
    from jaxtyping import Float

REFINED = 64  # logits of each row that are computed again


class RefinedHead(nn.Module):
    """A head that takes all logits from a fast layer, and computes the largest ones again from the weights themselves.

    bfloat16 has 8 significant bits: around 20 it has steps of 0.125, far more than the difference that decides between two beams. So the
    ``REFINED`` largest logits of each row are computed again in float32.

    Args:
        layer: computes all logits, in few bits.
        table: the head's weights, ``[vocabulary, width]``.

    Attributes:
        added: computes what adapters add to all logits, in float32, or None for nothing; None where there are no adapters.
    """

    added: Callable[[Tensor], Tensor | None] | None = None

    def __init__(self, layer: Callable[[Tensor], Tensor], table: Float[Tensor, "vocabulary width"]) -> None:
        super().__init__()
        self.layer = layer
        self.table = table.detach()

    def forward(self, hidden: Float[Tensor, "rows width"]) -> Float[Tensor, "rows vocabulary"]:
        """Logits in float32."""
        logits = self.layer(hidden).float()
        added = None if self.added is None else self.added(hidden)
        if added is not None:
            logits = logits + added
        ids = top_k_indices(logits, min(REFINED, logits.shape[-1]))
        exact = (self.table[ids].float() @ hidden.float().unsqueeze(-1)).squeeze(-1)
        if added is not None:
            exact += added.gather(1, ids)
        return logits.scatter_(1, ids, exact)


def refine_head(model: Florence2) -> None:
    """Replace the head of ``model``, which is not packed and has fewer bits than float32, by a ``RefinedHead``."""
    table = model.language_model.head_weight
    model.language_model.packed_head = RefinedHead(lambda hidden: F.linear(hidden, table), table)
