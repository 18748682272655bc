"""Which pictures of a list a labelling run asks about: not those that it has answers of, those of its shard, and of the first ones only.

In: inputs, and what of them is wanted. Out: the pictures as they are read. ``limit`` counts pictures as they are listed, labelled ones
included, so that the same command with the same list always means the same pictures. Knows nothing of questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from florence2.labelling.shards import Shard

if TYPE_CHECKING:
    from florence2.inputs.input import Input
    from florence2.inputs.pictures import Picture
    from florence2.inputs.selection import Selection


@dataclass(frozen=True)
class Chosen:
    """The pictures to ask about.

    Attributes:
        pictures: each as it is read.
        count: how many there are; None where that shows only while documents and videos are read.
    """

    pictures: Iterator[Future[Picture]]
    count: int | None


def choose(
    inputs: Sequence[Input], selection: Selection, *, is_done: Callable[[str], bool], shard: Shard | None = None, limit: int | None = None
) -> Chosen:
    """The pictures of a list that are to be asked about.

    Args:
        inputs: the list.
        selection: which pages and frames of files that hold several.
        is_done: whether the picture of that id was labelled already.
        shard: the part of the list; None for all.
        limit: how many pictures of the whole list; None for all.
    """
    from florence2.inputs.pictures import read_pictures

    def is_left_out(picture_id: str) -> bool:
        return is_done(picture_id) or not (shard is None or shard.holds(picture_id))

    listed = inputs[:limit]
    is_counted = not any(not selection.is_one(one) for one in listed)
    if limit is not None and not is_counted:  # pages and frames count, too, and are known when they are read
        return Chosen(_left(islice(read_pictures(listed, selection), limit), is_left_out), None)
    count = sum(not is_left_out(one.id) for one in listed) if is_counted else None
    return Chosen(read_pictures(listed, selection, skip=is_left_out), count)


def _left(pictures: Iterable[Future[Picture]], is_left_out: Callable[[str], bool]) -> Iterator[Future[Picture]]:
    return (reading for reading in pictures if not is_left_out(reading.result().image.id))
