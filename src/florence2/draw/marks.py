"""The marks of a result: outlines, labels and colours to draw.

In: a result. Out: a mark for each object, with its coordinates scaled if the drawing has another size than the picture. Each label has
its own colour, and letters on a colour are black or white, whichever has more contrast. Knows nothing of font sizes and of pixels.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from florence2.draw.layout import Rectangle
from florence2.location_bins import split_region
from florence2.outlines import corners, ordered

if TYPE_CHECKING:
    from florence2.results import FoundObject, Result

# Colours that are easy to distinguish, also with colour blindness: the palette of Okabe and Ito without black and yellow, and two more.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F3C8D", "#B00020")
DARK, LIGHT = "#000000", "#FFFFFF"  # one of them has a contrast of 4.58 or more to any colour
_UPPER_PART = 0.12
_GOLDEN_ANGLE = 0.381966


class Mark(NamedTuple):
    """One object to draw.

    Attributes:
        outlines: closed lines, each a flat list x, y, x, y, …
        is_box: there is one outline, an axis-aligned rectangle.
        is_filled: the inside is tinted.
        label: the text of the label; may have line breaks.
        colour: a colour as "#RRGGBB".
    """

    outlines: list[list[float]]
    is_box: bool
    is_filled: bool
    label: str
    colour: str

    @property
    def box(self) -> Rectangle:
        """The bounding box."""
        xs = [x for outline in self.outlines for x in outline[0::2]]
        ys = [y for outline in self.outlines for y in outline[1::2]]
        return Rectangle(min(xs), min(ys), max(xs) + 1, max(ys) + 1)

    @property
    def anchor(self) -> Rectangle:
        """The bounding box from the leftmost point of the outline's upper part on, for a label above it."""
        box = self.box
        upper = box.top + (box.bottom - box.top) * _UPPER_PART
        left = min(x for outline in self.outlines for x, y in zip(outline[0::2], outline[1::2], strict=True) if y <= upper)
        return box._replace(left=left)


def marks_of(result: Result, scale: float = 1.0) -> Iterator[Mark]:
    """A mark for each object of a result that has a location; equal labels have equal colours.

    Args:
        result: any result. The region of an answer about a region counts as an object.
        scale: factor of the coordinates.
    """
    colours: dict[str, str] = {}
    for index, found in enumerate(result.objects):
        colour = colours.setdefault(found.label or str(index), colour_of(len(colours)))
        score = "" if found.score is None else f"{found.score:.2f}"
        outlines = [_scaled(outline, scale) for outline in _outlines(found) if len(outline) >= 2]
        if outlines:
            yield Mark(outlines, found.kind == "box", found.kind == "polygons", f"{found.label} {score}".strip(), colour)
    region = split_region(result.text, result.image_size)[1] if result.kind == "text" else None
    if region is not None:
        yield Mark([_scaled(corners(region), scale)], True, False, "", COLOURS[0])


def words_of(result: Result) -> str:
    """A text answer without the location tokens of its region, which is drawn instead."""
    return split_region(result.text, result.image_size)[0]


def colour_of(index: int) -> str:
    """The colour of the label with this index."""
    if index < len(COLOURS):
        return COLOURS[index]
    number = index - len(COLOURS)
    red, green, blue = colorsys.hls_to_rgb((0.07 + number * _GOLDEN_ANGLE) % 1, (0.42, 0.58, 0.3)[number % 3], 0.75)
    return f"#{round(red * 255):02X}{round(green * 255):02X}{round(blue * 255):02X}"


def letters_on(colour: str) -> str:
    """Black or white, whichever has more contrast to a colour."""
    return max((LIGHT, DARK), key=lambda letters: contrast(letters, colour))


def contrast(first: str, second: str) -> float:
    """The contrast of two colours, 1 to 21. Source: WCAG 2.2, contrast ratio."""
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
    return [corners(ordered(found.box))]


def _scaled(outline: Sequence[float], scale: float) -> list[float]:
    return [value * scale for value in outline[: len(outline) // 2 * 2]]
