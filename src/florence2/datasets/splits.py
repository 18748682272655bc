"""Which records are learnt, which are held out, and in which batches they come.

In: records and a seed. Out: lists of records, the same for the same seed, so that a run which is resumed sees what it would have seen.
Knows nothing of models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from florence2.datasets.pictures import Picture
from florence2.datasets.record import Record
from florence2.errors import InvalidOption


def check_share(share: float) -> None:
    """Refuse a share of held-out pictures that can't be.

    Raises:
        InvalidOption: it is none.
    """
    if not 0 <= share < 1:
        raise InvalidOption(f"validation_share must be at least 0 and under 1, got {share}", field="validation_share")


def split(records: Sequence[Record], share: float, seed: int) -> tuple[list[Record], list[Record]]:
    """Records to learn from and records held out, by picture: all questions about one stand on one side.

    Args:
        records: of at least two pictures, unless nothing is held out.
        share: of the pictures that are held out, 0 to under 1; at least one picture where it is more than 0.
        seed: of the choice.

    Raises:
        InvalidOption: a share that can't be, or too few pictures.
    """
    check_share(share)
    pictures = list(dict.fromkeys(record.picture for record in records))
    count = max(1, round(share * len(pictures))) if share else 0
    if share and count >= len(pictures):
        raise InvalidOption(
            f"{len(pictures)} picture is too few to hold some out; give more, or a validation share of 0", field="validation_share"
        )
    order = np.random.default_rng(seed).permutation(len(pictures)).tolist()
    held_out = {pictures[index] for index in order[:count]}
    return [one for one in records if one.picture not in held_out], [one for one in records if one.picture in held_out]


def batches_of(records: Sequence[Record], batch_size: int, seed: int, epoch: int) -> list[list[Record]]:
    """An epoch's batches: pictures in a new order, the questions about one next to each other, so that it is encoded once."""
    rng = np.random.default_rng([seed, epoch])
    by_picture: dict[Picture, list[Record]] = {}
    for record in records:
        by_picture.setdefault(record.picture, []).append(record)
    pictures = list(by_picture.values())
    order = rng.permutation(len(pictures)).tolist()
    return in_order([pictures[index][position] for index in order for position in rng.permutation(len(pictures[index]))], batch_size)


def fingerprint(records: Sequence[Record]) -> str:
    """What tells one list of records from another."""
    digest = hashlib.sha256()
    for record in records:
        # Answers to be rehearsed may be the model's own, which can differ in a token when it is asked again.
        told = None if record.is_rehearsed else record.answers
        digest.update(repr((str(record.picture), record.prompt, told)).encode())
    return digest.hexdigest()


def in_order(records: Sequence[Record], batch_size: int) -> list[list[Record]]:
    """Batches as the records come."""
    return [list(records[start : start + batch_size]) for start in range(0, len(records), batch_size)]
