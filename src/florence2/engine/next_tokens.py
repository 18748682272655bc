"""The best next tokens of every row: the only part of a search that sees logits, for the rows of all requests at once.

Float32 throughout, and a row's tokens never depend on the other rows. Knows nothing of searches.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def best_tokens(
    logits: Tensor, count: int, banned: Sequence[Sequence[int]] = (), forced: Sequence[int] = (), locations: Sequence[int] = ()
) -> Candidates:
    """The ``count`` best next tokens of every row.

    Args:
        logits: ``[rows, vocabulary]``, of any floating-point type; may be overwritten.
        count: how many a row, cut to the vocabulary.
        banned: for each row the tokens that it may not take; empty where no row has any.
        forced: tokens whose log-probabilities are wanted whatever their rank.
        locations: the location tokens, whose probabilities are wanted whatever their rank; none if empty.
    """
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
    log_probs = torch.log_softmax(logits, dim=-1)
    wanted = torch.cat([log_probs[:, :0], *(log_probs[:, token : token + 1] for token in forced)], dim=1)
    of_locations = log_probs[:, _columns(locations)].exp().cpu().numpy() if locations else None
    if any(banned):
        rows = [row for row, tokens in enumerate(banned) for _ in tokens]
        # One copy to the device for both index lists.
        index = torch.tensor([rows, [token for tokens in banned for token in tokens]], device=logits.device)
        logits[index[0], index[1]] = -torch.inf
        log_probs[index[0], index[1]] = -torch.inf
    ids = top_k_indices(logits, count)
    # One copy from the device for all of them: each would wait until the device has done all its work.
    numbers = torch.cat([log_probs.gather(1, ids), wanted], dim=1)
    found = torch.cat([ids.int(), numbers.view(torch.int32)], dim=1).cpu().numpy()
    token_ids, values, of_forced = np.split(found, [count, 2 * count], axis=1)
    token_ids, values, of_forced = token_ids.astype(np.int64), values.view(np.float32), of_forced.view(np.float32)
    order = np.lexsort((token_ids, -values), axis=-1)
    return Candidates(
        np.take_along_axis(token_ids, order, axis=-1),
        np.take_along_axis(values, order, axis=-1),
        {token: of_forced[:, column] for column, token in enumerate(forced)},
        of_locations,
    )


def _columns(tokens: Sequence[int]) -> slice | list[int]:
    """How to index these columns: without gathering them where they lie side by side, as they do in published checkpoints."""
    return slice(tokens.start, tokens.stop) if isinstance(tokens, range) else list(tokens)
