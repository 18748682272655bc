"""Which sightings in different tiles are the same object, and what becomes of them.

In: the sightings of all tiles. Out: one sighting for each object. Two views of an object overlap much; where one of them is cut by the edge
of its tile, only the ground that both tiles show is compared. Parts of an object that no tile shows whole are joined. The lines of NMS are
here, because the kept implementations (torchvision's, OpenCV's) know neither tiles nor cuts, and bring torch or 60 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from florence2.tiling.sightings import Boxes, Sighting, Sightings, area, around, common, iou
from florence2.tiling.tasks import Matching
from florence2.tiling.tiles import TileBox

MIN_IOU = 0.5
"""From here on two views are of one object."""
MIN_SEEN_IOU = 0.5
"""The same for an object that a tile cuts, of what two tiles show of it on the ground that both show."""
MIN_INSIDE = 0.7
"""A cut view of which this share lies inside another view is a part of what that shows."""
MIN_REFUTED = 0.5
"""A cut view of which this share lies in another tile, which has found nothing there, is of nothing."""


def united(sightings: Iterable[Sighting], matching: Matching, tiles: Sequence[TileBox] = ()) -> list[Sighting]:
    """One sighting for each object; the same whatever the order.

    A whole view wins over a cut one, then the view of the smaller tile, which is the closer one, then the higher score. The winner gets the
    highest score of all views.

    Args:
        sightings: of all tiles.
        matching: how objects of the task are compared.
        tiles: the boxes of all tiles, without the whole picture.
    """
    views = Sightings(sorted(sightings, key=rank))
    is_left = np.ones(len(views.items), dtype=bool)
    found = []
    for index, view in enumerate(views.items):
        if is_left[index]:
            is_left[index] = False
            has_label = views.labels == views.labels[index] if matching.by_label else np.ones(len(is_left), dtype=bool)
            if view.is_cut:
                view = _joined(view, views, is_left, has_label)
            view = _absorbed(view, views, is_left, has_label, matching.has_callers_labels)
            if not is_refuted(view, tiles):
                found.append(view)
    return found


def is_refuted(view: Sighting, tiles: Sequence[TileBox]) -> bool:
    """Whether a cut view is of something that another tile shows with more around it, without having found it there."""
    if not view.is_cut:
        return False
    box = np.array(view.found.box)
    others = np.array([tile for tile in tiles if tile not in view.tiles], dtype=float).reshape(-1, 4)
    return bool((area(common(box, others)) >= MIN_REFUTED * area(box)).any())


def rank(view: Sighting) -> tuple:
    """The order in which views are taken, best first; it depends on nothing but the view."""
    size = float(area(np.array(view.tile, dtype=float)))
    extent = float(area(np.array(view.found.box)))
    return (view.is_cut, size, -(view.found.score or 0.0), -extent, view.found.box, view.tile, view.found.label)


def confirmed(view: Sighting, others: Sequence[Sighting]) -> Sighting:
    """A view of an object that others show, too: with the scores of the best one."""
    best = max((view, *others), key=lambda one: -1.0 if one.found.score is None else one.found.score).found
    found = replace(view.found, score=best.score, label_score=best.label_score, location_score=best.location_score)
    return replace(view, found=found, tiles=view.tiles.union(*(other.tiles for other in others)))


def _absorbed(view: Sighting, views: Sightings, is_left: NDArray[np.bool_], has_label: NDArray[np.bool_], keeps_others: bool) -> Sighting:
    """A view with the highest score of all views of the same object, which are taken.

    Args:
        view: the best view of the object.
        views: all of them.
        is_left: which of them are not taken yet; written to.
        has_label: which of them may be the same object by their label.
        keeps_others: a part of the object with another label is kept: the caller named both.
    """
    left = views.near(view, is_left)
    if not len(left):
        return view
    box, tile = np.array(view.found.box), np.array(view.tile, dtype=float)
    boxes, is_cut = views.boxes[left], views.is_cut[left]
    is_seen = iou(common(box, views.tiles[left]), common(boxes, tile)) >= MIN_SEEN_IOU
    is_inside = area(common(box, boxes)) >= MIN_INSIDE * area(boxes)
    is_same = has_label[left] & ((iou(box, boxes) >= MIN_IOU) | (is_cut & (is_seen | is_inside)))
    is_mistaken = is_cut & is_seen & is_inside & (not keeps_others)  # a part of an object may look like another object
    is_left[left[is_same | is_mistaken]] = False
    return confirmed(view, [views.items[index] for index in left[is_same]])


def _joined(view: Sighting, views: Sightings, is_left: NDArray[np.bool_], has_label: NDArray[np.bool_]) -> Sighting:
    """A cut view joined with the cut views of the same object in other tiles, which are taken; arguments as of ``_absorbed``."""
    while True:
        left = views.near(view, is_left & has_label & views.is_cut)
        if not len(left):
            return view
        box, tile = np.array(view.found.box), np.array(view.tile, dtype=float)
        shown = common(tile, views.tiles[left])
        seen = iou(common(box, shown), common(views.boxes[left], shown))
        if seen.max() < MIN_SEEN_IOU:
            return view
        chosen = left[int(np.argmax(seen))]
        is_left[chosen] = False
        view = union(view, views.items[chosen])


def union(first: Sighting, second: Sighting) -> Sighting:
    """Two views of parts of an object as one view of their tiles together."""
    box = around(np.array(first.found.box), np.array(second.found.box))
    tile = around(np.array(first.tile), np.array(second.tile))
    polygons = (*first.found.polygons, *second.found.polygons) if first.found.polygons and second.found.polygons else ()
    both = confirmed(first, [second])
    return replace(both, found=replace(both.found, box=_as_box(box), quad=None, polygons=polygons), tile=_as_box(tile))


def _as_box(values: Boxes) -> tuple:
    return tuple(values.tolist())
