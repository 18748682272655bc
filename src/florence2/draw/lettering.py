"""Lines of text: measured, broken and drawn, each letter in a font that has it.

In: a text in any script, a size in pixels. Out: lines that fit a width, and their letters on a picture. Pillow shapes the runs of one
font: with raqm it joins Arabic letters, positions marks and writes right to left; without it, letters are only put in visual order. Knows
nothing of objects and plates.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from PIL import ImageDraw, ImageFont, features

from florence2.draw.fonts import Fonts

HAS_RAQM = features.check("raqm")
ELLIPSIS = "…"
_JOINER = "\u200d"
_NOT_AT_START = ("Pe", "Pf", "Po", "Lm")  # closing marks, full stops, marks of length and repetition
_NOT_AT_END = ("Ps", "Pi")  # opening marks
_MIRRORED = dict(zip("()[]{}<>«»", ")(][}{><»«", strict=True))
_RIGHT_TO_LEFT = ("R", "AL")


class Run(NamedTuple):
    """Consecutive letters in one font."""

    font: ImageFont.FreeTypeFont
    text: str
    width: float


class Lettering:
    """Text in one size.

    Args:
        fonts: the fonts of the drawing.
        size: the size of letters in pixels.
    """

    def __init__(self, fonts: Fonts, size: float) -> None:
        self._fonts = fonts
        self.size = size
        main = fonts.main(size)
        self.ascent = -main.getbbox("ÅÉ|", anchor="ls")[1]
        self.descent = main.getbbox("gj|", anchor="ls")[3]
        self._widths: dict[str, float] = {}

    @property
    def line_height(self) -> int:
        """The distance between two baselines, in pixels."""
        return round((self.ascent + self.descent) * 1.12)

    def width(self, line: str) -> float:
        """The width of one line in pixels."""
        if line not in self._widths:
            self._widths[line] = sum(run.width for run in self._runs(line))
        return self._widths[line]

    def height_of(self, lines: list[str]) -> int:
        """The height of some lines, from the top of the tallest letters to the bottom of the lowest."""
        return round(self.ascent + self.descent) + self.line_height * (len(lines) - 1)

    def draw(self, pen: ImageDraw.ImageDraw, x: float, top: float, lines: list[str], colour: str, width: float = 0) -> None:
        """Draw lines of text from ``top`` down; right-to-left lines end at ``x + width``."""
        for number, line in enumerate(lines):
            start = x + max(0.0, width - self.width(line)) if is_right_to_left(line) else x
            foot = top + self.ascent + number * self.line_height
            for run in self._runs(line):
                pen.text((start, foot), run.text, fill=colour, font=run.font, anchor="ls")
                start += run.width

    def wrapped(self, text: str, width: float, max_lines: int | None = None) -> list[str]:
        """The text in lines of at most ``width`` pixels; after ``max_lines`` it ends with an ellipsis."""
        lines = [line for paragraph in printable(text).splitlines() or [""] for line in self._broken(paragraph, width)]
        if max_lines is None or len(lines) <= max_lines:
            return lines
        return [*lines[: max_lines - 1], self._cut(lines[max_lines - 1] + ELLIPSIS, width)]

    def balanced(self, text: str, width: float, max_lines: int) -> list[str]:
        """The text as by ``wrapped``, with lines of similar length."""
        lines = self.wrapped(text, width, max_lines)
        for share in (0.5, 0.6, 0.7, 0.8, 0.9) if len(lines) > 1 else ():
            narrower = self.wrapped(text, width * share, max_lines + 1)
            if len(narrower) == len(lines):
                return narrower
        return lines

    def _cut(self, line: str, width: float) -> str:
        """The start of a line that fits, with an ellipsis."""
        clusters = list(_clusters(line.removesuffix(ELLIPSIS)))
        while clusters and self.width("".join(clusters).rstrip() + ELLIPSIS) > width:
            clusters.pop()
        return "".join(clusters).rstrip() + ELLIPSIS

    def _broken(self, paragraph: str, width: float) -> Iterator[str]:
        """The lines of one paragraph."""
        line = ""
        for piece in _pieces(paragraph):
            if self.width((line + piece).rstrip()) <= width:
                line += piece
                continue
            if line:
                yield line.rstrip()
            *full, line = self._split(piece, width)
            yield from full
        yield line.rstrip()

    def _split(self, piece: str, width: float) -> list[str]:
        """A word in parts that fit, usually one."""
        parts = [""]
        for cluster in [piece] if self.width(piece.rstrip()) <= width else _clusters(piece):
            if parts[-1] and self.width((parts[-1] + cluster).rstrip()) > width:
                parts.append("")
            parts[-1] += cluster
        return parts

    def _runs(self, line: str) -> list[Run]:
        """The runs of a line, from left to right."""
        runs: list[tuple[ImageFont.FreeTypeFont, str]] = []
        for cluster in _clusters(line) if HAS_RAQM else in_visual_order(list(_clusters(line))):
            font, letters = self._fonts.of(cluster, self.size, line)
            if runs and runs[-1][0] is font:
                runs[-1] = (font, runs[-1][1] + letters)
            else:
                runs.append((font, letters))
        if HAS_RAQM and is_right_to_left(line):
            runs.reverse()
        return [Run(font, letters, font.getlength(letters)) for font, letters in runs]


def is_right_to_left(text: str) -> bool:
    """Whether a text is written right to left, by its first letter that has a direction."""
    directions = (unicodedata.bidirectional(char) for char in text)
    return next((direction for direction in directions if direction in ("L", *_RIGHT_TO_LEFT)), "L") in _RIGHT_TO_LEFT


def in_visual_order(clusters: list[str]) -> list[str]:
    """The letters in visual order from left to right, for systems without raqm: right-to-left parts are reversed.

    Neutral characters take the direction of the letters around them. Source: Unicode Standard Annex 9, simplified.
    """
    directions = [_direction(cluster) for cluster in clusters]
    if "R" not in directions:
        return clusters
    base = "R" if is_right_to_left("".join(clusters)) else "L"
    known = [index for index, direction in enumerate(directions) if direction in ("L", "R")]
    for index, direction in enumerate(directions):
        if direction == "":
            before = next((directions[other] for other in reversed(known) if other < index), base)
            after = next((directions[other] for other in known if other > index), base)
            directions[index] = before if before == after else base
    parts = [list(part) for _, part in groupby(zip(clusters, directions, strict=True), key=lambda pair: pair[1] == "R")]
    turned = [[(_MIRRORED.get(cluster, cluster), "R") for cluster, _ in part[::-1]] if part[0][1] == "R" else part for part in parts]
    return [cluster for part in (turned[::-1] if base == "R" else turned) for cluster, _ in part]


def _direction(cluster: str) -> str:
    """L or R for letters (L for numbers too); an empty text for neutral characters."""
    kind = unicodedata.bidirectional(cluster[0])
    return "R" if kind in _RIGHT_TO_LEFT else "L" if kind in ("L", "EN", "AN") else ""


def printable(text: str) -> str:
    """The text without invisible characters; line breaks are kept, other white space becomes spaces."""
    text = re.sub(r"[^\S\n\r\v\f\x85\u2028\u2029]", " ", unicodedata.normalize("NFC", text))
    return "".join(char for char in text if _has_shape(char))


def _has_shape(char: str) -> bool:
    if char in "\n\r\v\f\x85\u2028\u2029\u200c" or char == _JOINER:
        return True
    return unicodedata.category(char) not in ("Cc", "Cf") and not 0xFE00 <= ord(char) <= 0xFE0F


def _clusters(text: str) -> Iterator[str]:
    """The letters, each with its combining marks."""
    cluster = ""
    for char in text:
        belongs = unicodedata.category(char).startswith("M") or char in ("\u200c", _JOINER)
        if cluster and not belongs and not cluster.endswith(_JOINER):
            yield cluster
            cluster = ""
        cluster += char
    if cluster:
        yield cluster


def _pieces(paragraph: str) -> Iterator[str]:
    """Parts between which a line may break: words with the space after them, and characters of scripts without spaces."""
    piece = ""
    for char in paragraph:
        if piece and _may_break(piece[-1], char):
            yield piece
            piece = ""
        piece += char
    if piece:
        yield piece


def _may_break(before: str, after: str) -> bool:
    if before == " " or after == " ":
        return before == " " and after != " "
    if not (_is_ideograph(before) or _is_ideograph(after)):
        return False
    is_small_kana = "SMALL" in unicodedata.name(after, "")
    return not is_small_kana and unicodedata.category(after) not in _NOT_AT_START and unicodedata.category(before) not in _NOT_AT_END


def _is_ideograph(char: str) -> bool:
    """Whether a line may break next to the character: Han characters and kana, but not Hangul, which has spaces between words."""
    return unicodedata.east_asian_width(char) in ("W", "F") and not unicodedata.name(char, "").startswith("HANGUL")
