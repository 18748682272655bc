"""The scores of objects, from the probabilities of their label tokens and location tokens.

In: the objects with their spans, and each token's span and probabilities along the winning beam. Out: for each object the probability that
it is right, and the plain probabilities of its label tokens and its location tokens. Knows neither tasks nor the size of the image.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from florence2.location_bins import NUM_BINS
from florence2.tasks.certainty import certainty_of_boxes, certainty_of_outline
from florence2.tasks.parsing import Found, Span
from florence2.tasks.sentinels import SentinelFilter

_BOX_SIZE = 4


@dataclass(frozen=True)
class Scores:
    """The scores of all objects; None for an object without such tokens.

    Attributes:
        objects: the probability that the object is right: its label's score times the certainty of its location.
        labels: the exponential of the mean log-probability of its label tokens.
        locations: the same for its location tokens.
    """

    objects: list[float]
    labels: list[float | None]
    locations: list[float | None]

    @property
    def lists(self) -> tuple[list[Any], ...]:
        """The three of them."""
        return self.objects, self.labels, self.locations


@dataclass(frozen=True)
class TokenProbabilities:
    """The model's probabilities of the generated tokens, and of all locations at each location token.

    Attributes:
        own: the log-probability of each token given those before it.
        locations: for each location token the probabilities of all locations at its position, ``[NUM_BINS]``; None for other tokens.
            If it is None or missing for a location token, only the token's own probability is used.
    """

    own: Sequence[float]
    locations: Sequence[NDArray[np.float32] | None] = ()


def score_objects(found: Sequence[Found], tokens: TokenSpans, probabilities: TokenProbabilities) -> Scores:
    """The scores of the objects; each is the same whatever others it is scored with.

    Args:
        found: the objects.
        tokens: the tokens, at least those up to the end of the last object.
        probabilities: the probabilities of the tokens.
    """
    labels = [_mean_probability(tokens.within([item.label_span]), probabilities.own) for item in found]
    locations = [_mean_probability(tokens.within(item.location_spans), probabilities.own) for item in found]
    certainties = _certainties(found, tokens, probabilities)
    objects = [certainty if label is None else label * certainty for label, certainty in zip(labels, certainties, strict=True)]
    return Scores(objects, labels, locations)


class TokenSpans:
    """Finds the tokens that share a character with a span of the text without sentinels. Tokens are in order, and may become more.

    Args:
        sentinels: what takes the sentinels out of the text.
    """

    def __init__(self, sentinels: SentinelFilter) -> None:
        self._sentinels = sentinels
        self._num_settled = 0
        self._starts: list[int] = []
        self._ends: list[int] = []

    def update(self, offsets: Sequence[Span]) -> None:
        """Take note of new tokens, and of what has become certain of the text.

        Args:
            offsets: the span (start, end) of each token in the text with sentinels, those that are known already included.
        """
        del self._starts[self._num_settled :], self._ends[self._num_settled :]
        for index in range(self._num_settled, len(offsets)):
            start, end = map(self._sentinels.position, offsets[index])
            self._starts.append(start)
            self._ends.append(end)
            if end <= self._sentinels.length:
                self._num_settled = index + 1

    def within(self, spans: Iterable[Span]) -> set[int]:
        """The indices of the tokens that share a character with one of the spans."""
        return {
            index
            for start, end in spans
            for index in range(bisect_right(self._ends, start), bisect_left(self._starts, end))
            if self._starts[index] < self._ends[index]
        }


def _mean_probability(tokens: set[int], log_probabilities: Sequence[float]) -> float | None:
    if not tokens:
        return None
    return math.exp(math.fsum(log_probabilities[index] for index in tokens) / len(tokens))


def _certainties(found: Sequence[Found], tokens: TokenSpans, probabilities: TokenProbabilities) -> list[float]:
    """The certainty of each object's location; boxes of one answer are computed in one batch."""
    bins = [_flat(item.bins) for item in found]
    rows = [
        _rows(values, [tokens.within([span]) for span in item.location_spans], probabilities)
        for values, item in zip(bins, found, strict=True)
    ]
    if found and all(_is_box(item) for item in found):
        values = certainty_of_boxes(bins, np.stack(rows)).tolist()
    else:
        values = [certainty_of_outline(*each) for each in zip(bins, rows, strict=True)]
    return [min(max(value, 0.0), 1.0) for value in values]  # rounding may leave the range


def _flat(bins: Sequence[int] | Sequence[Sequence[int]]) -> list[int]:
    return [value for part in bins for value in (part if isinstance(part, list) else [part])]  # type: ignore[misc, list-item]


def _is_box(item: Found) -> bool:
    return len(item.bins) == _BOX_SIZE and not isinstance(item.bins[0], list)


def _rows(bins: Sequence[int], tokens: Sequence[set[int]], probabilities: TokenProbabilities) -> NDArray[np.float32]:
    """The probabilities of all locations at each coordinate, ``[len(bins), NUM_BINS]``."""
    rows = np.zeros((len(bins), NUM_BINS), dtype=np.float32)
    for row, value, spelling in zip(rows, bins, tokens, strict=True):
        known = probabilities.locations[next(iter(spelling))] if len(spelling) == 1 and probabilities.locations else None
        if known is not None:
            row[:] = known
        else:  # spelt in several tokens, or without probabilities of other locations
            row[min(value, NUM_BINS - 1)] = math.exp(math.fsum(probabilities.own[index] for index in spelling))
    return rows
