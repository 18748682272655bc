"""Examples as padded tensors of token ids, in groups of similar answer length, so that a short answer is not padded to the longest.

In: rows of token ids. Out: groups of tensors. Knows nothing of pictures, models or losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100
MAX_GROUPS = 4


@dataclass(frozen=True)
class Row:
    """One example as token ids, ``<s>`` and ``</s>`` included.

    Attributes:
        image_index: the index of its picture in the batch.
        tag: its task.
        prompt_ids: the input of the encoder.
        answer_ids: the target of the decoder.
    """

    image_index: int
    tag: str
    prompt_ids: list[int]
    answer_ids: list[int]


@dataclass(frozen=True)
class Group:
    """Examples of similar answer length.

    Attributes:
        tags: the task of each example.
        image_index: the index of its picture in the batch.
        prompt_ids: prompts, padded on the right.
        prompt_lengths: number of valid ids of each prompt.
        decoder_ids: the input of the decoder: start token, then the answer without its last token.
        labels: the target at each position; IGNORED behind the end.
    """

    tags: tuple[str, ...]
    image_index: Tensor
    prompt_ids: Tensor
    prompt_lengths: tuple[int, ...]
    decoder_ids: Tensor
    labels: Tensor


def make_groups(rows: Sequence[Row]) -> tuple[Group, ...]:
    """Examples in groups of similar answer length."""
    ordered = sorted(rows, key=lambda row: len(row.answer_ids))
    bounds = group_bounds([len(row.answer_ids) for row in ordered], MAX_GROUPS)
    return tuple(_group(ordered[start:end]) for start, end in bounds)


def count_tokens(groups: Sequence[Group]) -> int:
    """The number of tokens of all answers."""
    return sum(int((group.labels != IGNORED).sum()) for group in groups)


def group_bounds(lengths: Sequence[int], max_groups: int) -> list[tuple[int, int]]:
    """Where to cut ascending lengths so that, each group padded to its longest, the fewest positions are computed.

    Starts from one group and cuts, again and again, where a single cut saves most.
    """
    bounds = [(0, len(lengths))] if lengths else []
    while len(bounds) < max_groups:
        best_saving, best = 0, None
        for index, (start, end) in enumerate(bounds):
            for cut in range(start + 1, end):
                saving = (lengths[end - 1] - lengths[cut - 1]) * (cut - start)
                if saving > best_saving:
                    best_saving, best = saving, (index, cut)
        if best is None:
            break
        index, cut = best
        start, end = bounds[index]
        bounds[index : index + 1] = [(start, cut), (cut, end)]
    return bounds


def _group(rows: Sequence[Row]) -> Group:
    answers = [row.answer_ids for row in rows]
    labels = _padded(answers, IGNORED)
    # BART's decoder starts from </s> and sees <s> as its first token of output.
    decoder_ids = _padded([[answer[-1], *answer[:-1]] for answer in answers], 1)
    prompts = [row.prompt_ids for row in rows]
    return Group(
        tags=tuple(row.tag for row in rows),
        image_index=torch.tensor([row.image_index for row in rows]),
        prompt_ids=_padded(prompts, 1),
        prompt_lengths=tuple(len(prompt) for prompt in prompts),
        decoder_ids=decoder_ids,
        labels=labels,
    )


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    padded = torch.full((len(rows), max(len(row) for row in rows)), value)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row)
    return padded
