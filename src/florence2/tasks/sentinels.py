"""The text of an answer without its sentinels, as it grows.

In: pieces of a text. Out: what is certain of the text without ``<s>``, ``</s>`` and ``<pad>``; what may become a sentinel is held back.
One after the other is removed, as in the reference, so that a sentinel which only comes about by removing another may stay. Time is linear
in the length of the text. Knows neither tokens nor tasks.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

from florence2.results import Kind
from florence2.tasks.vocabulary import SENTINELS

_FRAME = ("<s>", "</s>")
_MAYBE = re.compile(r"<s>|</s>|<pad>|<(?:/?s?|p(?:ad?)?)\Z")
"""A sentinel, or the beginning of one at the end of the text."""


class _Removal:
    """Takes one sentinel out of a text that grows; its only ``<`` is its first character."""

    def __init__(self, sentinel: str) -> None:
        self._sentinel = sentinel
        self._removed: list[int] = []
        self._held = ""
        self._length = 0  # of the text so far, without what is held

    def add(self, text: str, is_last: bool) -> str:
        """What is certain since the last call."""
        text = self._held + text
        kept: list[str] = []
        start = 0
        while (found := text.find(self._sentinel, start)) >= 0:
            kept.append(text[start:found])
            self._removed.append(self._length + found)
            start = found + len(self._sentinel)
        bracket = text.rfind("<", start)
        is_open = not is_last and bracket >= 0 and self._sentinel.startswith(text[bracket:])
        end = bracket if is_open else len(text)
        kept.append(text[start:end])
        self._held = text[end:]
        self._length += end
        return "".join(kept)

    @property
    def is_holding(self) -> bool:
        """Whether the end of the text may become a sentinel."""
        return bool(self._held)

    def skip(self, length: int) -> None:
        """Let so many characters pass in which there is no sentinel and no beginning of one."""
        self._length += length

    def position(self, offset: int) -> int:
        """The offset in the text without the sentinel; inside of one, that of its place."""
        before = bisect_left(self._removed, offset)
        if not before:
            return offset
        length = len(self._sentinel)
        return offset - before * length + max(0, self._removed[before - 1] + length - offset)


class SentinelFilter:
    """A text that grows, without its sentinels.

    Attributes:
        length: of what is certain so far.
    """

    def __init__(self, sentinels: Sequence[str] = SENTINELS) -> None:
        self.length = 0
        self._is_holding = False
        self._removals = [_Removal(sentinel) for sentinel in sentinels]

    def add(self, text: str, *, is_last: bool = False) -> str:
        """What is certain since the last call, now that ``text`` follows; after the last piece that is all."""
        if not self._is_holding and not _MAYBE.search(text):
            for removal in self._removals:
                removal.skip(len(text))
        else:
            for removal in self._removals:
                text = removal.add(text, is_last)
            self._is_holding = any(removal.is_holding for removal in self._removals)
        self.length += len(text)
        return text

    def position(self, offset: int) -> int:
        """The offset in the text without sentinels of an offset in the whole text; beyond what is certain it may still change."""
        for removal in self._removals:
            offset = removal.position(offset)
        return offset


class TextFilter:
    """The text of a result, as the generated text grows: without sentinels; of an answer in words without whitespace around it.

    Attributes:
        sentinels: what takes the sentinels out; of an answer in words ``<pad>`` stays.
    """

    def __init__(self, kind: Kind) -> None:
        self.sentinels = SentinelFilter(_FRAME if kind == "text" else SENTINELS)
        self._is_stripped = kind == "text"
        self._has_begun = False
        self._held = ""

    def add(self, text: str, *, is_last: bool = False) -> str:
        """What is certain since the last call; whitespace is held back until something follows it."""
        text = self.sentinels.add(text, is_last=is_last)
        if not self._is_stripped:
            return text
        text = self._held + text
        if not self._has_begun:
            text = text.lstrip()
        certain = text.rstrip()
        self._has_begun = self._has_begun or bool(certain)
        self._held = text[len(certain) :]
        return certain
