"""The positions of labels: near their objects, inside the picture, and without overlaps.

In: the sizes of the labels' plates, the boxes of their objects, the size of the picture. Out: a rectangle for each plate, or None if there
is no free position. All values are whole pixels. Knows nothing of letters and colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_STEPS = 64  # positions that are tried along each side of the picture
# Distances from the object within which a free position is searched, in widths and heights of the plate; after the last one, anywhere.
_REACHES = (2.0, 6.0)
# The cost of covering a whole object, in steps down the list of preferred positions.
_COVERING_COST = 6.0

Size = tuple[int, int]
Corners = NDArray[np.float64]


class Rectangle(NamedTuple):
    """A rectangle; right and bottom are the first column and row outside."""

    left: float
    top: float
    right: float
    bottom: float

    def grown(self, margin: float) -> Rectangle:
        """The rectangle with a margin added on every side."""
        return Rectangle(self.left - margin, self.top - margin, self.right + margin, self.bottom + margin)

    def distance(self, other: Rectangle) -> float:
        """The distance between the nearest points of two rectangles; 0 if they touch or overlap."""
        dx = max(0.0, other.left - self.right, self.left - other.right)
        dy = max(0.0, other.top - self.bottom, self.top - other.bottom)
        return float(np.hypot(dx, dy))


def place_plates(plates: Sequence[Size], objects: Sequence[Rectangle], picture: Size, *, anywhere: bool = True) -> list[Rectangle | None]:
    """A position for each plate; None if there is no room.

    Above the object if that is free, else on another side of it or inside, else at the nearest free position.

    Args:
        plates: width and height of each plate.
        objects: the box of each plate's object.
        picture: width and height of the picture.
        anywhere: allow positions at any distance from the object.
    """
    reaches = (*_REACHES, np.inf) if anywhere else _REACHES
    taken = np.empty((0, 4))
    found: list[Rectangle | None] = []
    hopeless: list[Size] = []  # sizes without room; larger plates have none either, and searching is slow
    around = np.array(objects, float).reshape(-1, 4)
    for plate, target in zip(plates, objects, strict=True):
        is_hopeless = any(width <= plate[0] and height <= plate[1] for width, height in hopeless)
        corner = None if is_hopeless else _corner(plate, _inside(target, picture), picture, taken, around, reaches)
        if corner is None:
            found.append(None)
            if anywhere:
                hopeless.append(plate)
            continue
        spot = Rectangle(corner[0], corner[1], corner[0] + plate[0], corner[1] + plate[1])
        taken = np.vstack([taken, spot])
        found.append(spot)
    return found


def _inside(target: Rectangle, picture: Size) -> Rectangle:
    """The part of an object that is in the picture, or the nearest point of the picture."""
    left, top = min(max(target.left, 0), picture[0]), min(max(target.top, 0), picture[1])
    return Rectangle(left, top, max(left, min(target.right, picture[0])), max(top, min(target.bottom, picture[1])))


def _corner(
    plate: Size, target: Rectangle, picture: Size, taken: Corners, around: Corners, reaches: Sequence[float]
) -> tuple[float, float] | None:
    """The top left corner of a plate; None if there is no room."""
    if plate[0] > picture[0] or plate[1] > picture[1]:
        return None
    liked = _within(np.array(list(_liked(plate, target)), float), plate, picture)
    free = _are_free(liked, plate, taken)
    if free.any():
        cost = np.arange(len(liked)) + _COVERING_COST * _covered(liked, plate, around)
        x, y = liked[int(np.argmin(np.where(free, cost, np.inf)))]
        return float(x), float(y)
    for reach in reaches:
        corners = _nearest_first(plate, target, picture, taken, reach)
        if (free := _are_free(corners, plate, taken)).any():
            x, y = corners[int(np.argmax(free))]
            return float(x), float(y)
    return None


def _liked(plate: Size, target: Rectangle) -> Iterator[tuple[float, float]]:
    """The preferred top left corners of a plate, directly at its object, the best first."""
    width, height = plate
    left, top, right, bottom = target
    yield left, top - height
    yield left, top
    yield left, bottom
    yield right - width, top - height
    yield right - width, top
    yield right - width, bottom
    yield left, bottom - height
    yield right - width, bottom - height
    yield right, top
    yield left - width, top
    yield right, bottom - height
    yield left - width, bottom - height


def _within(corners: Corners, plate: Size, picture: Size) -> Corners:
    """The corners in whole pixels, moved so that their plates are inside the picture."""
    limits = np.array([picture[0] - plate[0], picture[1] - plate[1]], float)
    return np.clip(np.round(corners), 0, np.floor(limits))


def _are_free(corners: Corners, plate: Size, taken: Corners) -> NDArray[np.bool_]:
    """Whether each corner's plate overlaps no plate that is already there."""
    left, top = corners[:, :1], corners[:, 1:]
    apart = (left >= taken[:, 2]) | (left + plate[0] <= taken[:, 0]) | (top >= taken[:, 3]) | (top + plate[1] <= taken[:, 1])
    return np.all(apart, axis=1)


def _covered(corners: Corners, plate: Size, around: Corners) -> NDArray[np.float64]:
    """The number of objects that each corner's plate would cover, as a sum of fractions."""
    left, top = corners[:, :1], corners[:, 1:]
    width = np.minimum(left + plate[0], around[:, 2]) - np.maximum(left, around[:, 0])
    height = np.minimum(top + plate[1], around[:, 3]) - np.maximum(top, around[:, 1])
    areas = np.maximum((around[:, 2] - around[:, 0]) * (around[:, 3] - around[:, 1]), 1.0)
    return (np.maximum(width, 0) * np.maximum(height, 0) / areas).sum(axis=1)


def _nearest_first(plate: Size, target: Rectangle, picture: Size, taken: Corners, reach: float) -> Corners:
    """The corners to try, nearest to the object first."""
    width, height = plate
    dx, dy = reach * width, reach * height
    columns = _steps(max(0, target.left - width - dx), min(picture[0] - width, target.right + dx), width / 4, taken[:, (2, 0)] - (0, width))
    rows = _steps(
        max(0, target.top - height - dy), min(picture[1] - height, target.bottom + dy), height / 2, taken[:, (3, 1)] - (0, height)
    )
    corners = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    dx = np.maximum(0, np.maximum(corners[:, 0] - target.right, target.left - corners[:, 0] - width))
    dy = np.maximum(0, np.maximum(corners[:, 1] - target.bottom, target.top - corners[:, 1] - height))
    return corners[np.argsort(np.hypot(dx, dy), kind="stable")]


def _steps(first: float, last: float, step: float, edges: Corners) -> Corners:
    """Positions along one side of the picture: at even distances, and flush with plates that are already there."""
    first, last = np.ceil(min(first, last)), np.floor(last)
    count = min(MAX_STEPS, int((last - first) / max(step, 1.0)) + 2)
    flush = edges[(edges >= first) & (edges <= last)][-MAX_STEPS:]
    return np.unique(np.concatenate([np.round(np.linspace(first, last, count)), flush]))
