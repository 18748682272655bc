"""Which pages and frames of a file that holds several are pictures of their own.

In: ``--pages``, ``--frames`` and ``--every`` as words. Out: the pages of a document, and how far apart a video's frames are. Opens nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from florence2.errors import InvalidOption
from florence2.inputs.input import Input

_RANGE = re.compile(r"(\d{1,9})?(-)?(\d{1,9})?")
_EVERY = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)s|(\d{1,9})f")
ALL = "all"


@dataclass(frozen=True)
class Selection:
    """Which pictures of a file are taken.

    Attributes:
        pages: pages of PDF and TIFF files, such as "1-3,7" or "5-", or "all"; None for all of a PDF and the first of a TIFF.
        frames: of animated files (GIF, WebP, PNG, AVIF) "first" or "all"; with "all" a video gives each of its frames, too.
        every: of a video a frame every so many seconds ("2s", "0.5s") or frames ("30f"); None for one a second.

    Raises:
        InvalidOption: one of them is something else.
    """

    pages: str | None = None
    frames: Literal["first", "all"] | str = "first"
    every: str | None = None

    def __post_init__(self) -> None:
        _ranges(self.pages)
        if self.frames not in ("first", ALL):
            raise InvalidOption(f"frames must be first or all, got {self.frames!r}", field="frames")
        _step(self.every)

    @property
    def has_all_frames(self) -> bool:
        """Whether all frames of an animated file are taken."""
        return self.frames == ALL

    @property
    def seconds(self) -> Fraction | None:
        """How far apart the frames of a video are in time; None where they are counted."""
        return None if self.num_frames else _step(self.every)[0] or Fraction(1)

    @property
    def num_frames(self) -> int | None:
        """How far apart the frames of a video are, counted; None where they are timed."""
        return 1 if self.every is None and self.has_all_frames else _step(self.every)[1]

    def is_one(self, given: Input) -> bool:
        """Whether an input is one picture; a URL is taken to be one until it is fetched."""
        is_taken_apart = {"tiff": self.pages is not None, "animation": self.has_all_frames, "picture": False}
        return given.error is not None or not is_taken_apart.get(given.medium, True)

    def page_numbers(self, num_pages: int) -> list[int]:
        """The pages that are taken of so many, counted from 1, in their order."""
        ranges = _ranges(self.pages) or [(1, None)]
        chosen = {page for first, last in ranges for page in range(first, min(last or num_pages, num_pages) + 1)}
        return sorted(chosen)


def _ranges(pages: str | None) -> list[tuple[int, int | None]] | None:
    """First and last page of each range; None for all pages."""
    if pages is None or pages.strip().lower() == ALL:
        return None
    ranges: list[tuple[int, int | None]] = []
    for word in "".join(pages.split()).split(","):
        match = _RANGE.fullmatch(word)
        if match is None or not (match[1] or match[3]):
            raise _no_pages(pages)
        first = int(match[1] or 1)
        last = (int(match[3]) if match[3] else None) if match[2] else first
        if first < 1 or (last is not None and last < first):
            raise _no_pages(pages)
        ranges.append((first, last))
    return ranges


def _no_pages(pages: str) -> InvalidOption:
    return InvalidOption(f"pages must be numbers from 1 and ranges, such as 1-3,7 or 5-, or all, got {pages[:80]!r}", field="pages")


def _step(every: str | None) -> tuple[Fraction | None, int | None]:
    """Seconds, or frames."""
    if every is None:
        return None, None
    match = _EVERY.fullmatch(every.strip().lower())
    seconds, frames = (Fraction(match[1]) if match[1] else None, int(match[2]) if match[2] else None) if match else (None, None)
    if not seconds and not frames:
        raise InvalidOption(f"every must be seconds such as 2s or 0.5s, or frames such as 30f, got {every[:80]!r}", field="every")
    return seconds, frames
