"""The objects of a picture as data sets can hold them: inside the picture, with an area, of a class that has a name.

In: a labelled picture and the classes of its set. Out: its objects, coordinates rounded to thousandths of a pixel, and notices on those
that were left out. Knows no format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from florence2.datasets.labelled import LabelledObject, LabelledPicture
from florence2.datasets.writers.written import Notices
from florence2.outlines import Box, Outline, outline_area

NO_AREA = "objects without an area were left out"
NO_CLASS = "objects without the name of a class were left out"
_DIGITS = 3
_SMALLEST_AREA = 1e-3


@dataclass(frozen=True)
class WrittenObject:
    """An object with the number of its class, from 0."""

    found: LabelledObject
    class_id: int


def written_objects(picture: LabelledPicture, class_ids: Mapping[str, int], notices: Notices) -> list[WrittenObject]:
    """The objects of a picture that can be written."""
    kept = []
    for found in picture.objects:
        box = _inside(found.box, picture.size)
        if found.label not in class_ids or not found.label.strip():
            notices.add(NO_CLASS, picture.name)
        elif box is None:
            notices.add(NO_AREA, picture.name)
        else:
            polygons = tuple(cut for outline in found.polygons if (cut := _outline(outline, picture.size)))
            kept.append(WrittenObject(replace(found, box=box, polygons=polygons), class_ids[found.label]))
    return kept


def joined_outline(polygons: tuple[Outline, ...]) -> Outline:
    """One outline around the same pixels as several: each is joined to what came before by a line to the nearest corner and back."""
    joined = np.asarray(polygons[0], dtype=float).reshape(-1, 2)
    for outline in polygons[1:]:
        other = np.asarray(outline, dtype=float).reshape(-1, 2)
        distances = ((joined[:, None] - other[None]) ** 2).sum(axis=2)
        here, there = np.unravel_index(int(distances.argmin()), distances.shape)
        turned = np.roll(other, -int(there), axis=0)
        joined = np.concatenate([joined[: here + 1], turned, turned[:1], joined[here:]])
    return tuple(joined.reshape(-1).tolist())


def _inside(box: Box, size: tuple[int, int]) -> Box | None:
    """A box within its picture; None where nothing of it is."""
    if not all(map(math.isfinite, box)):
        return None
    x1, y1, x2, y2 = _clipped(box, size)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _outline(outline: Outline, size: tuple[int, int]) -> Outline | None:
    """An outline within its picture; None where it is no outline of an area."""
    if len(outline) < 6 or len(outline) % 2 or not all(map(math.isfinite, outline)):
        return None
    cut = tuple(_clipped(outline, size))
    return cut if outline_area(cut) >= _SMALLEST_AREA else None


def _clipped(values: Outline, size: tuple[int, int]) -> list[float]:
    return [round(min(max(float(value), 0.0), float(size[index % 2])), _DIGITS) for index, value in enumerate(values)]
