"""How likely each object is right, from the probabilities of the tokens that name and place it.

In: the objects found, their characters, each token's characters and probabilities along the winning beam. Out: per object
how likely it is right, and beside it how probable its label's and its location tokens were as they stand. It knows neither
tasks nor the size of the image.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from florence2.location_bins import NUM_BINS
from florence2.tasks.certainty import certainty_of_boxes, certainty_of_outline
from florence2.tasks.parsing import Found, Span
from florence2.tasks.vocabulary import SENTINELS

_BOX_SIZE = 4


@dataclass(frozen=True)
class Scores:
    """One entry per object; None where an object has no token of that sort.

    Attributes:
        objects: How likely it is right: the label's score times how certain its place is.
        labels: Exp of the mean log-probability of its label's tokens.
        locations: The same of its location tokens.
    """

    objects: list[float]
    labels: list[float | None]
    locations: list[float | None]


@dataclass(frozen=True)
class TokenProbabilities:
    """What the model held of each token that it generated, and of the locations that it could have taken instead.

    Attributes:
        own: For each token its log-probability given the ones before it.
        locations: For each token that is a location the probabilities of all locations in its place, ``[NUM_BINS]``; None for
            other tokens. Where it is None or missing for a location, the token's own probability is all that counts.
    """

    own: Sequence[float]
    locations: Sequence[NDArray[np.float32] | None] = ()


def score_objects(found: Sequence[Found], text: str, offsets: Sequence[Span], probabilities: TokenProbabilities) -> Scores:
    """The scores of the objects.

    Args:
        found: The objects, whose spans count characters of the text without sentinels.
        text: The whole generated text, sentinels included.
        offsets: For each token its characters (start, end) in ``text``.
        probabilities: Of the tokens.
    """
    tokens = _TokenSpans(_offsets_without_sentinels(text, offsets))
    labels = [_mean_probability(tokens.within([item.label_span]), probabilities.own) for item in found]
    locations = [_mean_probability(tokens.within(item.location_spans), probabilities.own) for item in found]
    certainties = _certainties(found, tokens, probabilities)
    objects = [place if label is None else label * place for label, place in zip(labels, certainties, strict=True)]
    return Scores(objects, labels, locations)


class _TokenSpans:
    """Finds the tokens that share a character with a span. Tokens lie in order, so both ends are sorted."""

    def __init__(self, offsets: Sequence[Span]) -> None:
        self._offsets = offsets
        self._starts = [start for start, _ in offsets]
        self._ends = [end for _, end in offsets]

    def within(self, spans: Iterable[Span]) -> set[int]:
        return {
            index
            for start, end in spans
            for index in range(bisect_right(self._ends, start), bisect_left(self._starts, end))
            if self._starts[index] < self._ends[index]
        }


def _offsets_without_sentinels(text: str, offsets: Sequence[Span]) -> list[Span]:
    """The offsets as they are once the sentinels are cut out of the text, in the order in which parsing cuts them."""
    shifted = list(offsets)
    for sentinel in SENTINELS:
        removed = [match.start() for match in re.finditer(re.escape(sentinel), text)]
        shifted = [(_shifted(start, removed, len(sentinel)), _shifted(end, removed, len(sentinel))) for start, end in shifted]
        text = text.replace(sentinel, "")
    return shifted


def _shifted(offset: int, removed: Sequence[int], length: int) -> int:
    before = bisect_left(removed, offset)
    if not before:
        return offset
    return offset - before * length + max(0, removed[before - 1] + length - offset)


def _mean_probability(tokens: set[int], log_probabilities: Sequence[float]) -> float | None:
    if not tokens:
        return None
    return math.exp(math.fsum(log_probabilities[index] for index in tokens) / len(tokens))


def _certainties(found: Sequence[Found], tokens: _TokenSpans, probabilities: TokenProbabilities) -> list[float]:
    """How sure each object's place is; all boxes of an answer are computed at once."""
    bins = [_flat(item.bins) for item in found]
    rows = [
        _rows(values, [tokens.within([span]) for span in item.location_spans], probabilities)
        for values, item in zip(bins, found, strict=True)
    ]
    if found and all(_is_box(item) for item in found):
        values = certainty_of_boxes(bins, np.stack(rows)).tolist()
    else:
        values = [certainty_of_outline(*each) for each in zip(bins, rows, strict=True)]
    return [min(max(value, 0.0), 1.0) for value in values]  # sums in floating point can leave the range by a hair


def _flat(bins: Sequence[int] | Sequence[Sequence[int]]) -> list[int]:
    return [value for part in bins for value in (part if isinstance(part, list) else [part])]  # type: ignore[misc, list-item]


def _is_box(item: Found) -> bool:
    return len(item.bins) == _BOX_SIZE and not isinstance(item.bins[0], list)


def _rows(bins: Sequence[int], tokens: Sequence[set[int]], probabilities: TokenProbabilities) -> NDArray[np.float32]:
    """The probabilities of every location at each coordinate, ``[len(bins), NUM_BINS]``."""
    rows = np.zeros((len(bins), NUM_BINS), dtype=np.float32)
    for row, value, spelling in zip(rows, bins, tokens, strict=True):
        known = probabilities.locations[next(iter(spelling))] if len(spelling) == 1 and probabilities.locations else None
        if known is not None:
            row[:] = known
        else:  # spelt out in letters, or nothing else is known of it
            row[min(value, NUM_BINS - 1)] = math.exp(math.fsum(probabilities.own[index] for index in spelling))
    return rows
