"""How sure the model was of each object, from the log-probabilities of the tokens that name and place it.

In: the objects found, their characters, each token's characters and log-probability along the winning beam. Out: per object
exp of the mean over its tokens, for label and locations together and apart. It knows neither tasks nor coordinates.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from florence2.tasks.parsing import Found, Span
from florence2.tasks.vocabulary import SENTINELS


@dataclass(frozen=True)
class Scores:
    """One entry per object; None where an object has no token of that sort."""

    objects: list[float]
    labels: list[float | None]
    locations: list[float | None]


def score_objects(found: Sequence[Found], text: str, offsets: Sequence[Span], log_probabilities: Sequence[float]) -> Scores:
    """The scores of the objects.

    Args:
        found: The objects, whose spans count characters of the text without sentinels.
        text: The whole generated text, sentinels included.
        offsets: For each token its characters (start, end) in ``text``.
        log_probabilities: For each token its log-probability given the ones before it.
    """
    tokens = _TokenSpans(_offsets_without_sentinels(text, offsets))
    objects, labels, locations = [], [], []
    for item in found:
        of_label = tokens.within([item.label_span])
        of_locations = tokens.within(item.location_spans)
        objects.append(_mean_probability(of_label | of_locations, log_probabilities) or 0.0)
        labels.append(_mean_probability(of_label, log_probabilities))
        locations.append(_mean_probability(of_locations, log_probabilities))
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
