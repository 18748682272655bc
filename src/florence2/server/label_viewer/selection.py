"""Which pictures a page shows, and in which order.

In: filters and an order, as the words of an address have them. Out: indices of pictures. Every filter is optional, and all have to hold.
Knows no routes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from starlette.datastructures import QueryParams

from florence2.errors import InvalidRequest
from florence2.server.label_viewer.index import Index, folded

SHOWN = ("all", "labelled", "empty", "problems")
ORDERS = ("set", "lowest", "highest", "most", "name")
SPLITS = ("", "train", "val")

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Filters:
    """What is shown.

    Attributes:
        classes: pictures with an object of one of these; empty for any.
        min_score: with an object of at least this score, and of these classes.
        max_score: and at most this one.
        split: the part of the data set; empty for both.
        shown: "labelled" pictures alone, those without objects and texts ("empty"), those with "problems", or "all".
        text: words, each of which is in the name, where it came from, a caption, or what was read.
        order: that of the "set", by the "lowest" or "highest" score of an object that is filtered for, "most" of these objects, or "name".
    """

    classes: tuple[str, ...] = ()
    min_score: float = 0.0
    max_score: float = 1.0
    split: str = ""
    shown: str = "all"
    text: str = ""
    order: str = "set"

    @property
    def is_about_objects(self) -> bool:
        """Whether pictures are chosen by their objects."""
        return bool(self.classes) or self.min_score > 0 or self.max_score < 1


def read_filters(words: QueryParams) -> Filters:
    """The filters in an address.

    Raises:
        InvalidRequest: a value that can't be.
    """
    low, high = (_score(words.get(name, default), name) for name, default in (("min_score", "0"), ("max_score", "1")))
    return Filters(
        classes=tuple(words.getlist("class")),
        min_score=low,
        max_score=high,
        split=_one_of(SPLITS, words.get("split", ""), "split"),
        shown=_one_of(SHOWN, words.get("shown", "all"), "shown"),
        text=words.get("text", ""),
        order=_one_of(ORDERS, words.get("order", "set"), "order"),
    )


def select(index: Index, filters: Filters) -> Indices:
    """The indices of the pictures that are shown, in order."""
    wanted = _wanted_objects(index, filters)
    counts = np.bincount(index.object_picture[wanted], minlength=len(index))
    kept = _of_kind(index, filters.shown)
    if filters.is_about_objects:
        kept &= counts > 0
    if filters.split:
        kept &= index.is_val == (filters.split == "val")
        kept[index.num_labelled :] = False
    if words := folded(filters.text).split():
        kept &= np.fromiter((all(word in text for word in words) for text in index.texts), bool, len(index))
    return _ordered(index, np.flatnonzero(kept), filters.order, wanted, counts)


def _wanted_objects(index: Index, filters: Filters) -> NDArray[np.bool_]:
    """Which objects of the run the filters are about."""
    wanted = np.ones(len(index.object_picture), bool)
    if filters.classes:
        numbers: Mapping[str, int] = {name: number for number, name in enumerate(index.classes)}
        wanted &= np.isin(index.object_class, [numbers[name] for name in filters.classes if name in numbers])
    if filters.min_score > 0:
        wanted &= index.object_score >= filters.min_score  # not true of NaN
    if filters.max_score < 1:
        wanted &= index.object_score <= filters.max_score
    return wanted


def _of_kind(index: Index, shown: str) -> NDArray[np.bool_]:
    kept = np.ones(len(index), bool)
    if shown == "problems":
        kept[: index.num_labelled] = False
    elif shown != "all":
        kept[index.num_labelled :] = False
    if shown == "empty":
        kept &= np.bincount(index.object_picture, minlength=len(index)) == 0
        kept &= ~index.has_texts
    return kept


def _ordered(index: Index, chosen: Indices, order: str, wanted: NDArray[np.bool_], counts: NDArray[np.int64]) -> Indices:
    """The chosen pictures in order; those that are equal in it in the order of the set, those without a score last."""
    if order == "name":
        return np.array(sorted(chosen, key=lambda one: folded(index.names[one])), np.int64)
    if order == "most":
        return chosen[np.argsort(-counts[chosen], kind="stable")]
    if order == "set":
        return chosen
    extreme, sign = (np.fmin, 1) if order == "lowest" else (np.fmax, -1)
    scores = np.full(len(index), np.nan)
    extreme.at(scores, index.object_picture[wanted], index.object_score[wanted])
    return chosen[np.argsort(sign * scores[chosen], kind="stable")]  # NaN last


def _score(word: str, name: str) -> float:
    try:
        score = float(word)
    except ValueError:
        score = np.nan
    if not 0 <= score <= 1:
        raise InvalidRequest(f"{name} must be a number from 0 to 1, got {word[:100]!r}", field=name)
    return score


def _one_of(values: Sequence[str], word: str, name: str) -> str:
    if word not in values:
        raise InvalidRequest(f"{name} must be one of {', '.join(filter(None, values))}, got {word[:100]!r}", field=name)
    return word
