"""Where the largest values of long rows are, in several times less time than by selecting over the whole row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

CHUNK = 64  # values that share one maximum


def largest(values: Float[Tensor, "rows length"], count: int) -> Int[Tensor, "rows count"]:
    """Places of the ``count`` largest values of every row, largest first.

    They lie in the ``count`` chunks with the largest maxima (or in the tail that fills no chunk), so all but these few chunks are only
    reduced.
    """
    rows, length = values.shape
    chunks = length // CHUNK
    if chunks <= count:
        return values.topk(count).indices
    head = chunks * CHUNK
    chunked = values[:, :head].unflatten(1, (chunks, CHUNK))
    best_chunks = chunked.amax(-1).topk(count).indices
    within = torch.arange(CHUNK, device=values.device)
    places = (best_chunks.unsqueeze(-1) * CHUNK + within).flatten(1)
    tail = torch.arange(head, length, device=values.device).expand(rows, -1)
    places = torch.cat([places, tail], dim=1)
    return places.gather(1, values.gather(1, places).topk(count).indices)
