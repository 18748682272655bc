"""What is to be drawn of a result: outlines in pixels, words and colours.

In: a result. Out: a mark for each object, its coordinates scaled where the drawing has another size than the picture. Each label has
its colour, and letters on a colour are black or white, whichever stands out more. Knows nothing of letters' sizes and of pixels.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from florence2.draw.layout import Rectangle
from florence2.location_bins import middle

if TYPE_CHECKING:
    from florence2.results import FoundObject, Result

# Told apart on most backgrounds and by most eyes: the palette of Okabe and Ito without its black and yellow, and two more.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F3C8D", "#B00020")
DARK, LIGHT = "#000000", "#FFFFFF"  # one of them has a contrast of 4.58 or more to any colour
_UPPER_PART = 0.12
_GOLDEN_ANGLE = 0.381966
_REGION = re.compile(r"((?:<loc_\d{1,3}>){4})\s*$")


class Mark(NamedTuple):
    """One object to draw.

    Attributes:
        outlines: closed lines, each a flat list x, y, x, y, …
        is_box: there is one outline, and its sides are upright.
        is_filled: the inside is tinted.
        label: the words beside it; may have line breaks.
        colour: as "#RRGGBB".
    """

    outlines: list[list[float]]
    is_box: bool
    is_filled: bool
    label: str
    colour: str

    @property
    def box(self) -> Rectangle:
        """The box around all of it."""
        xs = [x for outline in self.outlines for x in outline[0::2]]
        ys = [y for outline in self.outlines for y in outline[1::2]]
        return Rectangle(min(xs), min(ys), max(xs) + 1, max(ys) + 1)

    @property
    def anchor(self) -> Rectangle:
        """The part of that box which a label above it would touch: from the leftmost of its upper corners on."""
        box = self.box
        upper = box.top + (box.bottom - box.top) * _UPPER_PART
        left = min(x for outline in self.outlines for x, y in zip(outline[0::2], outline[1::2], strict=True) if y <= upper)
        return box._replace(left=left)


def marks_of(result: Result, scale: float = 1.0) -> Iterator[Mark]:
    """The objects of a result that have a place; a label has one colour wherever it comes.

    Args:
        result: any result. The region of an answer about one counts as an object.
        scale: what coordinates are multiplied by.
    """
    colours: dict[str, str] = {}
    for index, found in enumerate(result.objects):
        colour = colours.setdefault(found.label or str(index), colour_of(len(colours)))
        score = "" if found.score is None else f"{found.score:.2f}"
        outlines = [_scaled(outline, scale) for outline in _outlines(found) if len(outline) >= 2]
        if outlines:
            yield Mark(outlines, found.kind == "box", found.kind == "polygons", f"{found.label} {score}".strip(), colour)
    if (region := _REGION.search(result.text)) and result.kind == "text":
        bins = [int(number) for number in re.findall(r"\d+", region[1])]
        left, top, right, bottom = (middle(value, result.image_size[index % 2]) for index, value in enumerate(bins))
        yield Mark([_scaled([left, top, right, top, right, bottom, left, bottom], scale)], True, False, "", COLOURS[0])


def words_of(result: Result) -> str:
    """A text answer without the location tokens of its region, which is drawn."""
    return _REGION.sub("", result.text).strip()


def colour_of(index: int) -> str:
    """The colour of the label that came as number ``index``."""
    if index < len(COLOURS):
        return COLOURS[index]
    number = index - len(COLOURS)
    red, green, blue = colorsys.hls_to_rgb((0.07 + number * _GOLDEN_ANGLE) % 1, (0.42, 0.58, 0.3)[number % 3], 0.75)
    return f"#{round(red * 255):02X}{round(green * 255):02X}{round(blue * 255):02X}"


def letters_on(colour: str) -> str:
    """Black or white, whichever stands out more from a colour."""
    return max((LIGHT, DARK), key=lambda letters: contrast(letters, colour))


def contrast(first: str, second: str) -> float:
    """How much two colours stand out from each other, 1 to 21. Source: WCAG 2.2, contrast ratio."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _outlines(found: FoundObject) -> Sequence[Sequence[float]]:
    """The closed lines of one object; those of a box begin at its upper left, whichever corners it is given by."""
    if found.kind != "box":
        return found.outlines
    x1, y1, x2, y2 = found.box
    left, right, top, bottom = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    return [(left, top, right, top, right, bottom, left, bottom)]


def _scaled(outline: Sequence[float], scale: float) -> list[float]:
    return [value * scale for value in outline[: len(outline) // 2 * 2]]
