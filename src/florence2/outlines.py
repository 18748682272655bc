"""Plane geometry of boxes and outlines: areas, corners, and the box around outlines.

In: boxes x1, y1, x2, y2 and outlines, each a flat x, y, x, y, …, in any unit. Out: numbers of the same unit. Knows no pictures, labels or
formats, and of arrays nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

Box = tuple[float, float, float, float]
Outline = tuple[float, ...]


def outline_area(outline: Sequence[float]) -> float:
    """The area within an outline; of one that crosses itself the difference of its parts that turn to the left and to the right."""
    xs, ys = outline[0::2], outline[1::2]
    return abs(sum(xs[index - 1] * ys[index] - xs[index] * ys[index - 1] for index in range(len(ys)))) / 2


def box_around(outlines: Sequence[Sequence[float]]) -> Box:
    """The smallest box around outlines that have at least one point together."""
    xs, ys = ([value for outline in outlines for value in outline[axis::2]] for axis in (0, 1))
    return (min(xs), min(ys), max(xs), max(ys))


def corners(box: Box) -> Outline:
    """A box as an outline, from its first corner on."""
    x1, y1, x2, y2 = box
    return (x1, y1, x2, y1, x2, y2, x1, y2)


def ordered(box: Box) -> Box:
    """The same box from its upper left to its lower right corner."""
    x1, y1, x2, y2 = box
    return (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
