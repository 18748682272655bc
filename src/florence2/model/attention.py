"""Attention in the ways that the model needs it, each by what is fastest for it here.

Few queries to many keys (a decoder step) go to the compiled routines where they are there; bfloat16 on a CPU goes by two matrix products
and a softmax, which use the processor's matrix units; everything else, and all that is trained, goes to PyTorch's own routine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from florence2.model.cpu import kernels

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class Seen:
    """How many keys each entry of a batch sees, from the first on.

    Args:
        lengths: int32, at least 1 each.
        size: how many keys there are.
        is_all: every entry sees all of them.
    """

    def __init__(self, lengths: Int[Tensor, " entries"], size: int, *, is_all: bool) -> None:
        self.lengths = lengths
        self.size = size
        self.is_all = is_all

    @classmethod
    def of(cls, lengths: Sequence[int], size: int, device: torch.device) -> Seen:
        """From numbers."""
        return cls(torch.tensor(lengths, dtype=torch.int32, device=device), size, is_all=min(lengths) == size)

    @cached_property
    def mask(self) -> Bool[Tensor, "entries 1 1 size"] | None:
        """True where a key is seen, or None where all are (attention is faster without a mask)."""
        if self.is_all:
            return None
        return (torch.arange(self.size, device=self.lengths.device) < self.lengths.unsqueeze(1))[:, None, None, :]


def attend(
    query: Float[Tensor, "entries heads tokens head_width"],
    keys: Float[Tensor, "entries heads source head_width"],
    values: Float[Tensor, "entries heads source head_width"],
    seen: Seen | None = None,
    *,
    is_causal: bool = False,
) -> Float[Tensor, "entries tokens width"]:
    """What the queries find, all heads side by side.

    Args:
        query: float32 or, on a CPU that has routines for it, bfloat16; any type elsewhere.
        keys: of the query's type, or of fewer bits.
        values: like the keys.
        seen: how many keys each entry sees; None for all.
        is_causal: each token sees those up to itself; only where there are as many keys as queries.
    """
    if query.device.type != "cpu" or is_causal or torch.is_grad_enabled():
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen.mask if seen else None, is_causal=is_causal)
        return mixed.transpose(1, 2).flatten(2)
    compiled = kernels.loaded()
    if compiled is not None and seen is not None and compiled.can_attend(query, keys):
        return compiled.attend(query, keys, values, seen.lengths)
    if query.dtype == torch.bfloat16 and query.shape[2] > 1:
        mixed = _by_products(query, keys, values, seen)
    else:
        mask = seen.mask if seen else None
        mixed = F.scaled_dot_product_attention(query, keys.to(query.dtype), values.to(query.dtype), attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2)


def _by_products(query: Tensor, keys: Tensor, values: Tensor, seen: Seen | None) -> Float[Tensor, "entries heads tokens head_width"]:
    # In memory of their own, tokens behind each other: products of strided matrices are several times slower.
    scores = query.contiguous() @ keys.contiguous().transpose(-1, -2)
    scale, compiled = query.shape[-1] ** -0.5, kernels.loaded()
    if compiled is not None:
        lengths = None if seen is None or seen.is_all else seen.lengths
        scores = compiled.softmax_(scores.flatten(1, 2), scale, lengths).view(scores.shape)
    else:
        mask = seen.mask if seen else None
        weighted = scores * scale if mask is None else (scores * scale).masked_fill(~mask, -torch.inf)
        scores = weighted.softmax(dim=-1)
    return scores @ values.contiguous()
