"""The best next tokens of every row: the only part of a search that sees logits, for the rows of all requests at once.

Float32 throughout, and a row's tokens never depend on the other rows. Knows nothing of searches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from florence2.model.cpu import kernels
from florence2.model.top_k import top_k_indices


class Candidates(NamedTuple):
    """The best next tokens of some rows, best first, and the log-probabilities of the tokens that may be forced."""

    token_ids: NDArray[np.int64]  # [rows, count]
    log_probs: NDArray[np.float32]  # [rows, count]; minus infinity for a banned token
    forced_log_probs: dict[int, NDArray[np.float32]]  # token -> [rows]
    locations: NDArray[np.float32] | None = None  # probabilities of the location tokens, before any rule, [rows, locations]

    def rows(self, first: int, count: int) -> Candidates:
        """Those of ``count`` rows from ``first`` on."""
        part = slice(first, first + count)
        return Candidates(
            self.token_ids[part],
            self.log_probs[part],
            {token: values[part] for token, values in self.forced_log_probs.items()},
            None if self.locations is None else self.locations[part],
        )


@dataclass(frozen=True)
class RankedLogits:
    """The logits of a step whose best tokens were found with it, on the device.

    Attributes:
        logits: ``[rows, vocabulary]``, on the device; overwritten by the next step.
        ranked: what ``rank`` gives for them.
        count: of how many tokens.
        forced: and for which that may be forced.
    """

    logits: Tensor
    ranked: Tensor
    count: int
    forced: tuple[int, ...]


def best_tokens(
    logits: Tensor | RankedLogits,
    count: int,
    banned: Sequence[Sequence[int]] = (),
    forced: Sequence[int] = (),
    locations: Sequence[int] = (),
) -> Candidates:
    """The ``count`` best next tokens of every row.

    Args:
        logits: ``[rows, vocabulary]``, of any floating-point type; may be overwritten.
        count: how many a row, cut to the vocabulary.
        banned: for each row the tokens that it may not take; empty where no row has any.
        forced: tokens whose log-probabilities are wanted whatever their rank.
        locations: the location tokens, whose probabilities are wanted whatever their rank; none if empty.
    """
    if isinstance(logits, RankedLogits):
        return _best_of_ranked(logits, count, banned, forced, locations)
    count, compiled = min(count, logits.shape[-1]), kernels.loaded()
    if compiled is None or logits.device.type != "cpu" or logits.dtype != torch.float32 or not logits.is_contiguous():
        return best_by_pytorch(logits.float(), count, banned, forced, locations)
    best = compiled.best_tokens(logits, count, banned, forced, locations)
    of_forced = {token: best.forced[:, column] for column, token in enumerate(forced)}
    return Candidates(best.token_ids, best.log_probabilities, of_forced, best.locations if locations else None)


def best_by_pytorch(
    logits: Tensor, count: int, banned: Sequence[Sequence[int]], forced: Sequence[int], locations: Sequence[int]
) -> Candidates:
    """The same on any device, by PyTorch."""
    # So many are ranked that enough are left without the banned ones, which are left out where the numbers have come to.
    ranked = min(count + max(map(len, banned), default=0), logits.shape[-1])
    return _best_of_ranked(RankedLogits(logits, rank(logits, ranked, forced), ranked, tuple(forced)), count, banned, forced, locations)


def rank(logits: Tensor, count: int, forced: Sequence[int]) -> Tensor:
    """The best tokens of every row, in one tensor: a copy from the device waits until it has done all its work.

    Nothing in it depends on values, so a CUDA graph can capture it.

    Args:
        logits: ``[rows, vocabulary]``, float32.
        count: how many a row, no more than the vocabulary.
        forced: tokens whose log-probabilities are wanted whatever their rank.

    Returns:
        int32, ``[rows, count + count + len(forced)]``: the best tokens, and the bits of their log-probabilities and of those of ``forced``.
    """
    log_probs = torch.log_softmax(logits, dim=-1)
    ids = top_k_indices(logits, count)
    numbers = torch.cat([log_probs.gather(1, ids), *(log_probs[:, token : token + 1] for token in forced)], dim=1)
    return torch.cat([ids.int(), numbers.view(torch.int32)], dim=1)


def _best_of_ranked(
    given: RankedLogits, count: int, banned: Sequence[Sequence[int]], forced: Sequence[int], locations: Sequence[int]
) -> Candidates:
    """The best tokens of rows that were ranked; where too few were, the rows are ranked again."""
    vocabulary = given.logits.shape[-1]
    count = min(count, vocabulary)
    is_enough = given.count >= min(count + max(map(len, banned), default=0), vocabulary)
    if not is_enough or not set(forced) <= set(given.forced):
        return best_by_pytorch(given.logits, count, banned, forced, locations)
    of_locations = torch.log_softmax(given.logits, dim=-1)[:, _columns(locations)].exp().cpu().numpy() if locations else None
    found = given.ranked.cpu().numpy().copy()  # on a CPU it would be the given one
    token_ids, numbers = found[:, : given.count].astype(np.int64), found[:, given.count :].view(np.float32)
    values, of_forced = numbers[:, : given.count], numbers[:, given.count :]
    for row, tokens in enumerate(banned):
        for token in tokens:
            values[row, token_ids[row] == token] = -np.inf
    best = np.arange(len(found))[:, None], np.lexsort((token_ids, -values), axis=-1)[:, :count]
    return Candidates(
        token_ids[best],
        values[best],
        {token: of_forced[:, given.forced.index(token)] for token in forced},
        of_locations,
    )


def _columns(tokens: Sequence[int]) -> slice | list[int]:
    """How to index these columns: without gathering them where they lie side by side, as they do in published checkpoints."""
    return slice(tokens.start, tokens.stop) if isinstance(tokens, range) else list(tokens)
