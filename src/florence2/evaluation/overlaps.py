"""How far boxes and outlines overlap, counted by pycocotools.

In: boxes x1, y1, x2, y2 and flat outlines x, y, x, y, … in pixels. Out: intersections over unions, and who is matched with whom. Knows
nothing of tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LabelledBox = tuple[str, Sequence[float]]


def match(wanted: Sequence[LabelledBox], found: Sequence[LabelledBox]) -> list[float]:
    """For each wanted (label, box) its overlap with a found one of the same label, 0 where there is none; a found one counts once."""
    overlaps = box_overlaps([box for _, box in wanted], [box for _, box in found])
    for row, (label, _) in enumerate(wanted):
        overlaps[row, [column for column, (name, _) in enumerate(found) if name != label]] = 0.0
    matched = [0.0] * len(wanted)
    while overlaps.size and overlaps.max() > 0:
        row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
        matched[int(row)] = float(overlaps[row, column])
        overlaps[row, :], overlaps[:, column] = 0.0, 0.0
    return matched


def box_overlaps(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], *, are_crowds: bool = False) -> np.ndarray:
    """Intersection over union of each box x1, y1, x2, y2 of the first with each of the second, ``[first, second]``.

    Where the first are crowds it is, as in COCO, the share of the second that lies within them.
    """
    if not first or not second:
        return np.zeros((len(first), len(second)))
    found, wanted = (np.array([sides(box) for box in boxes], dtype=np.float64) for boxes in (second, first))
    return np.array(_masks().iou(found, wanted, [int(are_crowds)] * len(first))).T.copy()


def mask_overlap(wanted: Sequence[Sequence[float]], found: Sequence[Sequence[float]], size: tuple[int, int]) -> float:
    """Intersection over union of the areas inside two sets of flat x, y outlines, counted in pixels of a picture of ``size``.

    Two empty areas are equal.
    """
    mask = _masks()
    masks = []
    if not any(len(outline) >= 6 for outline in (*wanted, *found)):
        return 1.0
    for outlines in (found, wanted):
        drawn = [list(outline) for outline in outlines if len(outline) >= 6]
        if not drawn:
            return 0.0
        masks.append(mask.merge(mask.frPyObjects(drawn, size[1], size[0])))
    return float(np.array(mask.iou(masks[:1], masks[1:], [0]))[0, 0])


def _masks() -> Any:
    """Pycocotools' masks; its types leave out arrays and lists of outlines."""
    from pycocotools import mask

    return mask


def sides(box: Sequence[float]) -> list[float]:
    """x, y, width, height, as COCO has it."""
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]
