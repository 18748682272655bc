"""From generated text to the objects that it describes, as it grows.

In: the generated text, whole or piece by piece. Out: ``Found`` objects with label, location bins and the spans of the text that they were
read from, each as soon as nothing that follows can change it. A grammar is a generator: it yields an object, or None where it needs more
text. Accepts any text, in time linear in its length. Knows neither token ids nor image sizes. Source of the grammars: the reference's
post-processor; differences are in ``docs/decisions/0001-answers.md``.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from florence2.tasks.sentinels import SentinelFilter
from florence2.tasks.table import Grammar

Span = tuple[int, int]

_BOX_SIZE = 4
_QUAD_SIZE = 8
_SHORTEST_OUTLINE = 4
"""The smallest number of consecutive location, separator and polygon tokens that a phrase needs."""
_MOST_DIGITS = 18
_POLY = "<poly>"
_END_OF_POLY = "</poly>"


class _Token(NamedTuple):
    """A kind of tokens, and the beginnings of one at the end of a text."""

    pattern: re.Pattern[str]
    beginning: re.Pattern[str]


def _token(*words: str) -> _Token:
    """A location, or one of these words."""
    beginnings = [re.escape(word[:length]) for word in ("<loc_", *words) for length in range(len(word))]
    return _Token(re.compile("|".join([r"<loc_\d+>", *words])), re.compile(rf"(?:<loc_\d*|{'|'.join(beginnings)})\Z"))


_LOCATION = _token()
_PART = _token("<sep>", _POLY, _END_OF_POLY)
_LOCATIONS = re.compile(r"(?:<loc_\d+>)+")


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


@dataclass
class _Text:
    """A text without sentinels, as far as it is known."""

    known: str = ""
    is_complete: bool = False


class _Phrase(NamedTuple):
    """A label and its first four tokens, as offsets into the text."""

    start: int
    tokens: list[Span]

    @property
    def label_end(self) -> int:
        return self.tokens[0][0]


_Objects = Generator[Found | None, None, None]
_Opening = Callable[[_Text, _Token, int], Generator[None, None, _Phrase | None]]


class ObjectReader:
    """Reads the objects of an answer while it is generated.

    An answer of boxes or polygons is read as boxes until its first ``<poly>``, which makes all of it polygons. Where boxes were given by
    then, which can't be taken back, nothing is given after them.

    Args:
        grammar: the form of the task's answers.
        banned_phrases: labels that grounding leaves out, compared exactly.

    Attributes:
        was_contradicted: boxes were given of an answer that is one of polygons.
    """

    def __init__(self, grammar: Grammar, banned_phrases: frozenset[str] = frozenset()) -> None:
        self.was_contradicted = False
        self._text = _Text()
        self._may_turn = grammar == "boxes_or_polygons"
        self._has_given = False
        self._tail = ""
        self._objects = _objects(grammar, self._text, banned_phrases)

    def add(self, raw: str, clean: str, *, is_last: bool = False) -> list[Found]:
        """The objects that are complete since the last call.

        Args:
            raw: the text that follows, with sentinels.
            clean: the text without sentinels that follows, as a ``SentinelFilter`` gives it.
            is_last: whether the answer ends here.
        """
        self._text.known += clean
        self._text.is_complete = is_last
        if self._may_turn:
            self._look_for_polygons(raw)
        found: list[Found] = []
        for item in self._objects:
            if item is None:
                break
            found.append(item)
        self._has_given = self._has_given or bool(found)
        return found

    def _look_for_polygons(self, raw: str) -> None:
        seen = self._tail + raw
        self._tail = seen[1 - len(_POLY) :]
        if _POLY in seen:
            self._may_turn = False
            self.was_contradicted = self._has_given
            self._objects = iter(()) if self._has_given else _polygons(self._text, _labelled)


def find_objects(grammar: Grammar, text: str, banned_phrases: frozenset[str] = frozenset()) -> list[Found]:
    """The objects of an answer in the order of generation; none for the grammar ``text``.

    Args:
        grammar: the form of the task's answers.
        text: the generated text, with or without sentinels.
        banned_phrases: labels that grounding leaves out, compared exactly.
    """
    return ObjectReader(grammar, banned_phrases).add(text, SentinelFilter().add(text, is_last=True), is_last=True)


def _objects(grammar: Grammar, text: _Text, banned_phrases: frozenset[str]) -> Iterator[Found | None]:
    if grammar in ("labelled_boxes", "boxes_or_polygons"):
        return _boxes(text, _labelled)
    if grammar == "bare_boxes":
        return _boxes(text, _bare)
    if grammar == "phrase_boxes":
        return _boxes(text, _labelled, banned_phrases)
    if grammar == "quads":
        return _quads(text)
    if grammar == "polygons":
        return _polygons(text, _bare)
    return iter(())


def _bracket(text: _Text, start: int) -> Generator[None, None, int]:
    """The offset of the next ``<``, or -1 if there is none."""
    while (found := text.known.find("<", start)) < 0 and not text.is_complete:
        start = len(text.known)
        yield None
    return found


def _next_token(text: _Text, token: _Token, start: int) -> Generator[None, None, Span | None]:
    """The span of the token at an offset, or None if the text goes on differently."""
    while not (match := token.pattern.match(text.known, start)):
        if text.is_complete or not token.beginning.match(text.known, start):
            return None
        looked = len(text.known)
        yield None
        is_number = text.known.startswith("<loc_", start)
        while is_number and not text.is_complete and text.known[looked:].isdecimal():  # digits alone end no location
            looked = len(text.known)
            yield None
    return match.span()


def _run(text: _Text, token: _Token, start: int, most: int) -> Generator[None, None, list[Span]]:
    """The spans of the first tokens from an offset on, up to ``most``."""
    spans: list[Span] = []
    while len(spans) < most and (span := (yield from _next_token(text, token, start))):
        spans.append(span)
        start = span[1]
    return spans


def _labelled(text: _Text, token: _Token, position: int) -> Generator[None, None, _Phrase | None]:
    """The next label (any text without ``<``) that is directly followed by at least four tokens."""
    while (label_end := (yield from _bracket(text, position))) >= 0:
        if label_end > position:
            tokens = yield from _run(text, token, label_end, _SHORTEST_OUTLINE)
            if len(tokens) == _SHORTEST_OUTLINE:
                return _Phrase(position, tokens)
        position = label_end + 1
    return None


def _bare(text: _Text, token: _Token, position: int) -> Generator[None, None, _Phrase | None]:
    """The next run of at least four tokens, whatever is before it."""
    while (start := (yield from _bracket(text, position))) >= 0:
        tokens = yield from _run(text, token, start, _SHORTEST_OUTLINE)
        if len(tokens) == _SHORTEST_OUTLINE:
            return _Phrase(start, tokens)
        position = tokens[-1][1] if tokens else start + 1
    return None


def _label(text: str, start: int, end: int) -> tuple[str, Span] | None:
    """The label between two offsets, and its span; None for a label of several lines."""
    label = text[start:end]
    body = label.lstrip()
    if "\n" in body:
        return None
    first = start + len(label) - len(body)
    body = body.rstrip()
    return body, (first, first + len(body))


def _bin(text: str, location: Span) -> int:
    digits = text[location[0] + len("<loc_") : location[1] - 1]
    return int(digits) if len(digits) <= _MOST_DIGITS else 10**_MOST_DIGITS


def _bins(text: str, locations: list[Span]) -> list[int]:
    return [_bin(text, location) for location in locations]


def _boxes(text: _Text, opening: _Opening, banned_phrases: frozenset[str] = frozenset()) -> _Objects:
    """One object per four locations behind a label; the remaining ones are dropped."""
    position = 0
    while phrase := (yield from opening(text, _LOCATION, position)):
        labelled = _label(text.known, phrase.start, phrase.label_end)
        locations = phrase.tokens
        while len(locations) == _BOX_SIZE:
            position = locations[-1][1]
            if labelled and labelled[0] not in banned_phrases:
                yield Found(labelled[0], _bins(text.known, locations), labelled[1], locations)
            locations = yield from _run(text, _LOCATION, position, _BOX_SIZE)
        position = locations[-1][1] if locations else position


def _quads(text: _Text) -> _Objects:
    """One object per eight locations with at least one character before them on the same line."""
    position, searched = 0, 1
    while (first := (yield from _bracket(text, searched))) >= 0:
        locations = yield from _run(text, _LOCATION, first, _QUAD_SIZE)
        if len(locations) < _QUAD_SIZE:
            searched = locations[-1][1] if locations else first + 1
            continue
        start = max(position, text.known.rfind("\n", position, first) + 1)
        if start == first:
            position, searched = start, start + 1
            continue
        content = text.known[start:first]
        label = content.strip()
        label_start = start + len(content) - len(content.lstrip())
        yield Found(label, _bins(text.known, locations), (label_start, label_start + len(label)), locations)
        position = locations[-1][1]
        searched = position + 1


def _polygons(text: _Text, opening: _Opening) -> _Objects:
    """One object per ``<poly>`` … ``</poly>``, or one for the whole phrase if it has not both of them."""
    position = 0
    while phrase := (yield from opening(text, _PART, position)):
        position = yield from _outlines(text, phrase)


def _outlines(text: _Text, phrase: _Phrase) -> Generator[Found | None, None, int]:
    """The objects of a phrase, and the offset of its end. Its label ends before its first location or ``<poly>`` but a leading location."""
    parts = deque(phrase.tokens)
    label_start, end = phrase.start, phrase.label_end
    labels: list[tuple[str, Span] | None] = []
    inner: int | None = None  # where the open outline begins
    seen: set[str] = set()
    while part := parts.popleft() if parts else (yield from _next_token(text, _PART, end)):
        end = part[1]
        word = text.known[part[0] : end]
        is_location = word.startswith("<loc_")
        if is_location and part[0] == phrase.start:
            label_start = end
        elif not labels and (is_location or word == _POLY):
            labels.append(_label(text.known, label_start, part[0]))
        if word == _POLY:
            inner = end if inner is None else inner
        elif word == _END_OF_POLY and inner is not None:
            yield from _outline(text.known, labels, (inner, part[0]))
            inner = None
        if word in (_POLY, _END_OF_POLY):
            seen.add(word)
    if len(seen) < len((_POLY, _END_OF_POLY)):
        yield from _outline(text.known, labels, (phrase.start, end))
    return end


def _outline(text: str, labels: list[tuple[str, Span] | None], inner: Span) -> Iterator[Found]:
    """The object of one outline of a phrase, if the phrase has a label and the outline a polygon."""
    for label, label_span in filter(None, labels):
        polygons, spans = _rings(text, *inner)
        if polygons:
            yield Found(label, polygons, label_span, spans)


def _rings(text: str, start: int, end: int) -> tuple[list[list[int]], list[Span]]:
    """The bins of every run of locations up to a ``<sep>`` or the outline's end, without a last odd one, and their spans."""
    polygons: list[list[int]] = []
    spans: list[Span] = []
    for run in _LOCATIONS.finditer(text, start, end):
        if run.end() == end or text.startswith("<sep>", run.end()):
            locations = [match.span() for match in _LOCATION.pattern.finditer(text, *run.span())]
            del locations[len(locations) - len(locations) % 2 :]
            polygons.append(_bins(text, locations))
            spans += locations
    return polygons, spans
