"""Outlines, tints and leader lines on a picture, with smooth edges.

In: a picture in RGB, which is changed, and marks. Polygons and quads are drawn larger and scaled down, each within its own box, so that
memory is limited by the object's size; boxes are on whole pixels. Knows nothing of letters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from PIL import Image, ImageDraw

from florence2.draw.layout import Rectangle
from florence2.draw.marks import LIGHT, Mark

TINT = 0.34  # opacity of the colour inside an outline
SMALL_TILE = 2**20  # pixels; edges of larger ones are a little less smooth
MAX_BAND = 2**24  # pixels of a mask

Points = list[tuple[float, float]]


class Pens(NamedTuple):
    """Widths of lines in pixels, odd so that lines through the middle of pixels have crisp edges."""

    line: int
    rim: int  # white rim on each side of a line, so that it is visible on its own colour


def pens_for(size: tuple[int, int], objects: Sequence[Rectangle] = ()) -> Pens:
    """The line widths for a picture of some size; thinner if small objects would be hidden.

    Args:
        size: width and height of the picture.
        objects: the boxes of the objects.
    """
    side = min(size)
    line = max(1 if side < 100 else 3, round(side / 200) // 2 * 2 + 1)
    if objects:
        line = min(line, max(1 if side < 100 else 3, int(usual_side(objects) / 9) // 2 * 2 + 1))
    return Pens(line, 0 if side < 64 else max(1, round(line / 7)))


def usual_side(objects: Sequence[Rectangle]) -> float:
    """The median of the shorter sides of objects."""
    return median(min(box.right - box.left, box.bottom - box.top) for box in objects)


def tint(canvas: Image.Image, mark: Mark) -> None:
    """Tint the inside of a mark."""
    outlines = [outline for outline in mark.outlines if len(outline) >= 6]
    if outlines:
        _smooth(canvas, outlines, mark.colour, 0, lambda pen, points, _: pen.polygon(points, fill=round(255 * TINT)))


def outline(canvas: Image.Image, mark: Mark, pens: Pens) -> None:
    """Draw the lines of a mark, each with a thin white rim."""
    widths = ((LIGHT, pens.line + 2 * pens.rim), (mark.colour, pens.line)) if pens.rim else ((mark.colour, pens.line),)
    for colour, width in widths:
        if mark.is_box:
            _frame(canvas, mark.box, colour, width, inset=pens.line // 2)
        else:
            _smooth(canvas, mark.outlines, colour, width, lambda pen, points, scale, width=width: _stroke(pen, points, width * scale))


def leader(canvas: Image.Image, plate: Rectangle, target: Rectangle, colour: str, pens: Pens) -> None:
    """Draw a line from a plate to its object."""
    x1, x2 = _nearest(plate.left, plate.right - 1, target.left, target.right - 1)
    y1, y2 = _nearest(plate.top, plate.bottom - 1, target.top, target.bottom - 1)
    thin = max(1, pens.line // 3)
    for shade, width in ((LIGHT, thin + 2), (colour, thin)):
        _smooth(canvas, [[x1, y1, x2, y2]], shade, width, lambda pen, points, scale, width=width: _stroke(pen, points, width * scale))


def _nearest(low: float, high: float, other_low: float, other_high: float) -> tuple[float, float]:
    """The nearest points of two intervals; the middle of their overlap if they overlap."""
    if high < other_low or other_high < low:
        return (high, other_low) if high < other_low else (low, other_high)
    middle = (max(low, other_low) + min(high, other_high)) / 2
    return middle, middle


def _frame(canvas: Image.Image, box: Rectangle, colour: str, width: int, inset: int) -> None:
    """Draw the sides of a box; those at the picture's edge are moved inside by half a line."""
    left, right = (_clamped(x, inset, canvas.width) for x in (box.left, box.right - 1))
    top, bottom = (_clamped(y, inset, canvas.height) for y in (box.top, box.bottom - 1))
    half = width // 2
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((left - half, top - half, right + half, bottom + half), outline=colour, width=width)


def _clamped(value: float, inset: int, length: int) -> int:
    return max(min(inset, length // 2), min(round(value), length - 1 - inset))


def _stroke(pen: ImageDraw.ImageDraw, points: Points, width: int) -> None:
    """Draw a closed line, or a dot for a single point."""
    if len(set(points)) == 1:
        (x, y), radius = points[0], max(1.0, width * 0.8)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        return
    pen.line([*points, *points[:2]], fill=255, width=width, joint="curve")


def _smooth(
    canvas: Image.Image,
    outlines: Sequence[Sequence[float]],
    colour: str,
    width: int,
    draw: Callable[[ImageDraw.ImageDraw, Points, int], None],
) -> None:
    """Paint with smooth edges; ``draw`` takes a pen on a mask, the points on it, and the scale of the mask."""
    left, top, right, bottom = _tile(outlines, width, canvas.size)
    if left >= right or top >= bottom:
        return
    scale = 4 if (right - left) * (bottom - top) <= SMALL_TILE else 2
    num_rows = max(1, MAX_BAND // ((right - left) * scale * scale))
    for start in range(top, bottom, num_rows):
        band = (left, start, right, min(bottom, start + num_rows))
        mask = Image.new("L", ((right - left) * scale, (band[3] - start) * scale))
        pen = ImageDraw.Draw(mask)
        for line in outlines:
            draw(pen, [((x - left + 0.5) * scale, (y - start + 0.5) * scale) for x, y in zip(line[0::2], line[1::2], strict=True)], scale)
        canvas.paste(colour, band, mask.reduce(scale))


def _tile(outlines: Sequence[Sequence[float]], width: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of the picture that some lines cover."""
    xs, ys = [x for line in outlines for x in line[0::2]], [y for line in outlines for y in line[1::2]]
    return (
        max(0, math.floor(min(xs)) - width - 1),
        max(0, math.floor(min(ys)) - width - 1),
        min(size[0], math.ceil(max(xs)) + width + 2),
        min(size[1], math.ceil(max(ys)) + width + 2),
    )
