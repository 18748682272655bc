"""Attention, computed by the fastest routine for each case.

On a CPU, a few queries to many keys (a decoder step) go to the compiled kernels if there are any, and bfloat16 goes through two matrix
products and a softmax, which use the processor's matrix units. Everything else, and all training, goes to PyTorch's own routine.
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


class KeyLengths:
    """The number of valid keys of each entry of a batch: the first ``lengths[i]`` keys of entry ``i`` are attended to.

    Args:
        lengths: int32, each at least 1.
        num_keys: the number of keys in the tensor, valid or not.
        is_full: all keys of all entries are valid.
    """

    def __init__(self, lengths: Int[Tensor, " entries"], num_keys: int, *, is_full: bool) -> None:
        self.lengths = lengths
        self.num_keys = num_keys
        self.is_full = is_full
        self._biases: dict[torch.dtype, Tensor] = {}

    @classmethod
    def of(cls, lengths: Sequence[int], num_keys: int, device: torch.device) -> KeyLengths:
        """Key lengths from plain integers."""
        return cls(torch.tensor(lengths, dtype=torch.int32, device=device), num_keys, is_full=min(lengths) == num_keys)

    @cached_property
    def mask(self) -> Bool[Tensor, "entries 1 1 num_keys"] | None:
        """The attention mask, True where a key is valid; None if all are (attention is faster without a mask)."""
        if self.is_full:
            return None
        return (torch.arange(self.num_keys, device=self.lengths.device) < self.lengths.unsqueeze(1))[:, None, None, :]

    def bias(self, dtype: torch.dtype) -> Float[Tensor, "entries 1 1 num_keys"] | None:
        """What is added to the scores of keys, minus infinity where a key is not valid; None if all are. All calls share one of a type.

        PyTorch makes one of a mask in every call, by three operations.
        """
        if self.mask is not None and dtype not in self._biases:
            self._biases[dtype] = torch.zeros(self.mask.shape, dtype=dtype, device=self.mask.device).masked_fill_(~self.mask, -torch.inf)
        return self._biases.get(dtype)


def attend(
    query: Float[Tensor, "entries heads tokens head_width"],
    keys: Float[Tensor, "entries heads source head_width"],
    values: Float[Tensor, "entries heads source head_width"],
    key_lengths: KeyLengths | None = None,
    *,
    is_causal: bool = False,
) -> Float[Tensor, "entries tokens width"]:
    """The attention output, the heads side by side.

    Args:
        query: on a CPU float32 or, if the processor has routines for it, bfloat16; elsewhere any type.
        keys: of the query's type, or of one with fewer bits.
        values: of the keys' type.
        key_lengths: the number of valid keys of each entry; None if all are valid.
        is_causal: each token attends to itself and those before it; there must be as many keys as queries.
    """
    on_cpu = query.device.type == "cpu"
    if not on_cpu or is_causal or torch.is_grad_enabled():
        mask = None if key_lengths is None else key_lengths.mask if on_cpu else key_lengths.bias(query.dtype)
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, is_causal=is_causal)
        return mixed.transpose(1, 2).flatten(2)
    compiled = kernels.loaded()
    if compiled is not None and key_lengths is not None and compiled.can_attend(query, keys):
        return compiled.attend(query, keys, values, key_lengths.lengths)
    if query.dtype == torch.bfloat16 and query.shape[2] > 1:
        mixed = _by_products(query, keys, values, key_lengths)
    else:
        mask = key_lengths.mask if key_lengths else None
        mixed = F.scaled_dot_product_attention(query, keys.to(query.dtype), values.to(query.dtype), attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2)


def _by_products(
    query: Tensor, keys: Tensor, values: Tensor, key_lengths: KeyLengths | None
) -> Float[Tensor, "entries heads tokens head_width"]:
    # Contiguous copies: products of strided matrices are several times slower.
    scores = query.contiguous() @ keys.contiguous().transpose(-1, -2)
    scale, compiled = query.shape[-1] ** -0.5, kernels.loaded()
    if compiled is not None:
        lengths = None if key_lengths is None or key_lengths.is_full else key_lengths.lengths
        scores = compiled.softmax_(scores.flatten(1, 2), scale, lengths).view(scores.shape)
    else:
        mask = key_lengths.mask if key_lengths else None
        weighted = scores * scale if mask is None else (scores * scale).masked_fill(~mask, -torch.inf)
        scores = weighted.softmax(dim=-1)
    return scores @ values.contiguous()
