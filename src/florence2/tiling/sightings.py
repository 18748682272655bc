"""What was found in the tiles of a picture, in pixels of the whole picture.

In: a result for each tile, and the tiles' boxes. Out: ``Sightings``, their boxes as arrays, so that one can be compared with all others at
once. Whether two of them are the same thing is decided in ``merging``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from florence2.results import FoundObject, Result
from florence2.tiling.tiles import TileBox

EDGE_SHARE = 0.01
"""How near to the edge of its tile an object ends that counts as cut there, in sides of the tile: ten location bins."""

Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class Sighting:
    """One object as one tile shows it.

    Attributes:
        found: the object, its coordinates unrounded pixels of the whole picture.
        tile: the tile, or the smallest box around several that were joined.
        size: width and height of the whole picture.
        tiles: the tiles in which the object was found.
    """

    found: FoundObject
    tile: TileBox
    size: tuple[int, int]
    tiles: frozenset[TileBox]

    @property
    def cut(self) -> tuple[bool, bool, bool, bool]:
        """Whether the object ends at the left, top, right and bottom edge of its tile, where the picture goes on behind it."""
        left, top, right, bottom = self.tile
        near_x, near_y = (right - left) * EDGE_SHARE, (bottom - top) * EDGE_SHARE
        x1, y1, x2, y2 = self.found.box
        width, height = self.size
        return (
            left > 0 and x1 <= left + near_x,
            top > 0 and y1 <= top + near_y,
            right < width and x2 >= right - near_x,
            bottom < height and y2 >= bottom - near_y,
        )

    @property
    def is_cut(self) -> bool:
        """Whether a part of the object may lie outside the tile."""
        return any(self.cut)

    @property
    def fills_its_tile(self) -> bool:
        """Whether the object is about as large as its tile, which is a part of the picture: a larger view shows it better."""
        return self.is_cut and bool(area(np.array(self.found.box)) >= 0.9 * area(np.array(self.tile, dtype=float)))


class Sightings:
    """Sightings in arrays, one row each.

    Attributes:
        items: the sightings.
        boxes: their boxes.
        tiles: the boxes of their tiles.
        is_cut: whether each is cut.
        labels: a number for each label.
    """

    def __init__(self, items: Sequence[Sighting]) -> None:
        self.items = list(items)
        numbers: dict[str, int] = {}
        self.boxes = np.array([item.found.box for item in items], dtype=float).reshape(-1, 4)
        self._edges = np.ascontiguousarray(self.boxes.T)
        self.tiles = np.array([item.tile for item in items], dtype=float).reshape(-1, 4)
        self.is_cut = np.array([item.is_cut for item in items], dtype=bool)
        self.labels = np.array([numbers.setdefault(item.found.label, len(numbers)) for item in items], dtype=int)

    def near(self, view: Sighting, among: NDArray[np.bool_]) -> NDArray[np.intp]:
        """The indices of the sightings that touch one and are in other tiles; what a tile shows twice are two objects.

        Args:
            view: the one.
            among: which sightings are looked at.
        """
        x1, y1, x2, y2 = view.found.box
        left, top, right, bottom = self._edges
        touching = np.flatnonzero(among & (left < x2) & (right > x1) & (top < y2) & (bottom > y1))
        return np.array([index for index in touching if self.items[index].tile not in view.tiles], dtype=np.intp)


def sightings_of(results: Sequence[Result], tiles: Sequence[TileBox], size: tuple[int, int]) -> Iterator[Sighting]:
    """The objects of all results, in pixels of the picture; boxes without an area are left out.

    Args:
        results: one for each tile.
        tiles: the tiles' boxes.
        size: width and height of the picture.
    """
    for result, tile in zip(results, tiles, strict=True):
        objects = result.objects
        if len(objects) == len(result.bins):
            objects = [found.unrounded(bins, result.image_size) for found, bins in zip(objects, result.bins, strict=True)]
        for found in objects:
            x1, y1, x2, y2 = found.box
            if x1 >= x2 or y1 >= y2:
                continue
            yield Sighting(_moved(found, tile[0], tile[1]), tile, size, frozenset([tile]))


def _moved(found: FoundObject, left: float, top: float) -> FoundObject:
    def moved(outline: Sequence[float]) -> tuple[float, ...]:
        return tuple(value + (top if index % 2 else left) for index, value in enumerate(outline))

    quad = None if found.quad is None else moved(found.quad)
    return replace(found, box=moved(found.box), quad=quad, polygons=tuple(map(moved, found.polygons)))  # type: ignore[arg-type]


def area(boxes: Boxes) -> NDArray[np.float64]:
    """The area of each box; 0 for one that is none."""
    return np.maximum(boxes[..., 2] - boxes[..., 0], 0) * np.maximum(boxes[..., 3] - boxes[..., 1], 0)


def common(first: Boxes, second: Boxes) -> Boxes:
    """What boxes have in common with others; of area 0 where that is nothing."""
    return np.concatenate([np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])], axis=-1)


def around(first: Boxes, second: Boxes) -> Boxes:
    """The smallest boxes around boxes and others."""
    return np.concatenate([np.minimum(first[..., :2], second[..., :2]), np.maximum(first[..., 2:], second[..., 2:])], axis=-1)


def iou(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Intersection over union; 0 where both are empty."""
    shared = area(common(first, second))
    either = area(first) + area(second) - shared
    return np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
