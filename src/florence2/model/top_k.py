"""The top-k of long rows, several times faster than ``torch.topk`` over the whole row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

CHUNK = 64  # values that are reduced to one maximum


def top_k_indices(values: Float[Tensor, "rows length"], count: int) -> Int[Tensor, "rows count"]:
    """The indices of the ``count`` largest values of every row, largest first.

    These values are in the ``count`` chunks with the largest maxima, or in the tail that fills no chunk. So every chunk is reduced to its
    maximum, and only the values of ``count`` chunks are sorted.
    """
    rows, length = values.shape
    chunks = length // CHUNK
    if chunks <= count:
        return values.topk(count).indices
    head = chunks * CHUNK
    chunked = values[:, :head].unflatten(1, (chunks, CHUNK))
    best_chunks = chunked.amax(-1).topk(count).indices
    within = torch.arange(CHUNK, device=values.device)
    candidates = (best_chunks.unsqueeze(-1) * CHUNK + within).flatten(1)
    tail = torch.arange(head, length, device=values.device).expand(rows, -1)
    candidates = torch.cat([candidates, tail], dim=1)
    return candidates.gather(1, values.gather(1, candidates).topk(count).indices)
