"""From generated text to the objects that it describes.

In: the generated text with special tokens. Out: ``Found`` objects with label, location bins and the spans of the text that they were read
from. Accepts any text, in time linear in its length. Knows neither token ids nor image sizes. Source of the grammars: the reference's
post-processor; differences are in ``docs/decisions/0001-answers.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from florence2.tasks.table import Grammar
from florence2.tasks.vocabulary import SENTINELS

Span = tuple[int, int]

_LOCATION = re.compile(r"<loc_(\d+)>")
_QUAD = re.compile(r"<loc_(\d+)>" * 8)
_PART = re.compile(r"<loc_\d+>|<sep>|<poly>|</poly>")
_BOX_SIZE = 4
_SHORTEST_OUTLINE = 4
"""The smallest number of consecutive location, separator and polygon tokens that a phrase needs."""
_MOST_DIGITS = 18


@dataclass(frozen=True)
class Found:
    """One object of an answer.

    Attributes:
        label: the label without surrounding whitespace.
        bins: location bins: four of a box, eight of a quad, or one flat list per polygon.
        label_span: the span (start, end) of the label in the text without sentinels.
        location_spans: the spans of its location tokens in the same text.
    """

    label: str
    bins: list[Any]
    label_span: Span
    location_spans: list[Span]


class _Phrase(NamedTuple):
    """A label and the run of tokens after it, as offsets into the text."""

    start: int
    label_end: int
    end: int


def without_sentinels(text: str) -> str:
    """The text without ``<s>``, ``</s>`` and ``<pad>``, removed in this order."""
    for sentinel in SENTINELS:
        text = text.replace(sentinel, "")
    return text


def find_objects(grammar: Grammar, text: str, banned_phrases: frozenset[str] = frozenset()) -> list[Found]:
    """The objects of an answer in the order of generation; none for the grammar ``text``.

    Args:
        grammar: the form of the task's answers.
        text: the generated text, with or without sentinels.
        banned_phrases: labels that grounding leaves out, compared exactly.
    """
    clean = without_sentinels(text)
    if grammar == "labelled_boxes" or (grammar == "boxes_or_polygons" and "<poly>" not in text):
        return list(_boxes(clean, _labelled(clean, _LOCATION)))
    if grammar == "bare_boxes":
        return list(_boxes(clean, _bare(clean, _LOCATION)))
    if grammar == "phrase_boxes":
        return [found for found in _boxes(clean, _labelled(clean, _LOCATION)) if found.label not in banned_phrases]
    if grammar == "quads":
        return list(_quads(clean))
    if grammar == "polygons":
        return list(_polygons(clean, _bare(clean, _PART)))
    if grammar == "boxes_or_polygons":
        return list(_polygons(clean, _labelled(clean, _PART)))
    return []


def _end_of_run(text: str, token: re.Pattern[str], start: int) -> tuple[int, int]:
    """The end of the run of matching tokens from ``start`` on, and their number."""
    count = 0
    while match := token.match(text, start):
        start = match.end()
        count += 1
    return start, count


def _labelled(text: str, token: re.Pattern[str]) -> Iterator[_Phrase]:
    """Every label (any text without ``<``) that is directly followed by at least four matching tokens."""
    position = 0
    while (label_end := text.find("<", position)) >= 0:
        if label_end > position:
            end, count = _end_of_run(text, token, label_end)
            if count >= _SHORTEST_OUTLINE:
                yield _Phrase(position, label_end, end)
                position = end
                continue
        position = label_end + 1


def _bare(text: str, token: re.Pattern[str]) -> Iterator[_Phrase]:
    """Every run of at least four matching tokens, whatever is before it."""
    position = 0
    while match := token.search(text, position):
        position, count = _end_of_run(text, token, match.start())
        if count >= _SHORTEST_OUTLINE:
            yield _Phrase(match.start(), match.start(), position)


def _label(text: str, start: int, end: int) -> tuple[str, Span] | None:
    """The label between two offsets, and its span; None for a label of several lines."""
    label = text[start:end]
    body = label.lstrip()
    if "\n" in body:
        return None
    first = start + len(label) - len(body)
    body = body.rstrip()
    return body, (first, first + len(body))


def _locations(text: str, start: int, end: int) -> tuple[list[int], list[Span]]:
    matches = list(_LOCATION.finditer(text, start, end))
    return [_bin(match.group(1)) for match in matches], [match.span() for match in matches]


def _bin(digits: str) -> int:
    return int(digits) if len(digits) <= _MOST_DIGITS else 10**_MOST_DIGITS


def _boxes(text: str, phrases: Iterator[_Phrase]) -> Iterator[Found]:
    """One object per four locations; the remaining ones are dropped."""
    for phrase in phrases:
        labelled = _label(text, phrase.start, phrase.label_end)
        if labelled is None:
            continue
        bins, spans = _locations(text, phrase.label_end, phrase.end)
        for first in range(0, len(bins) - _BOX_SIZE + 1, _BOX_SIZE):
            yield Found(labelled[0], bins[first : first + _BOX_SIZE], labelled[1], spans[first : first + _BOX_SIZE])


def _quads(text: str) -> Iterator[Found]:
    """One object per eight locations with at least one character before them on the same line."""
    position = 0
    while match := _QUAD.search(text, position + 1):
        start = max(position, text.rfind("\n", position, match.start()) + 1)
        if start == match.start():
            position = start
            continue
        content = text[start : match.start()]
        first = start + len(content) - len(content.lstrip())
        label = content.strip()
        bins, spans = _locations(text, match.start(), match.end())
        yield Found(label, bins, (first, first + len(label)), spans)
        position = match.end()


def _polygons(text: str, phrases: Iterator[_Phrase]) -> Iterator[Found]:
    """One object per ``<poly>`` … ``</poly>``, or one for the whole phrase if there is no such pair."""
    for phrase in phrases:
        labelled = _outline_label(text, phrase)
        if labelled is None:
            continue
        for start, end in _outlines(text, phrase):
            polygons, spans = _rings(text, start, end)
            if polygons:
                yield Found(labelled[0], polygons, labelled[1], spans)


def _outline_label(text: str, phrase: _Phrase) -> tuple[str, Span] | None:
    """The label of a phrase: the text before its first location or ``<poly>``, without a leading location."""
    leading = _LOCATION.match(text, phrase.start, phrase.end)
    start = leading.end() if leading else phrase.start
    ends = [offset for token in ("<loc_", "<poly>") if (offset := text.find(token, start, phrase.end)) >= 0]
    return _label(text, start, min(ends)) if ends else None


def _outlines(text: str, phrase: _Phrase) -> Iterator[Span]:
    opening, closing = (text.find(token, phrase.start, phrase.end) for token in ("<poly>", "</poly>"))
    if opening < 0 or closing < 0:
        yield phrase.start, phrase.end
        return
    while opening >= 0:
        start = opening + len("<poly>")
        closing = text.find("</poly>", start, phrase.end)
        if closing < 0:
            return
        yield start, closing
        opening = text.find("<poly>", closing, phrase.end)


def _rings(text: str, start: int, end: int) -> tuple[list[list[int]], list[Span]]:
    """The bins of every run of locations up to a ``<sep>`` or the outline's end, without a last odd one, and their spans."""
    polygons: list[list[int]] = []
    spans: list[Span] = []
    while match := _LOCATION.search(text, start, end):
        start, _ = _end_of_run(text, _LOCATION, match.start())
        if start == end or text.startswith("<sep>", start):
            bins, location_spans = _locations(text, match.start(), start)
            kept = len(bins) - len(bins) % 2
            polygons.append(bins[:kept])
            spans.extend(location_spans[:kept])
    return polygons, spans
