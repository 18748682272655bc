"""Pieces of text in reading order, and those of several tiles made one text.

In: pieces with their quads. Out: lines from top to bottom, each from left to right; and the pieces of all tiles, each once. A piece that a
tile cuts loses to the same piece read whole; the two cut parts of a piece are joined by the letters that both have read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from florence2.results import FoundObject
from florence2.tiling.grouping import MIN_INSIDE, MIN_IOU, confirmed, is_refuted, rank, union
from florence2.tiling.sightings import Sighting, Sightings, area, common, iou
from florence2.tiling.tiles import TileBox

MIN_COVERED = 0.6
"""A piece of which this share is covered by closer views has been read there."""
FEW_LETTERS = 3.5
"""Where two cut pieces can share no more letters than that, one letter that both have read joins them, otherwise two; below 2 none."""
MAX_SLOPE = math.radians(40)
"""Lines that rise or fall more steeply are read as if they were level."""


def read_together(sightings: Iterable[Sighting], tiles: Sequence[TileBox]) -> list[Sighting]:
    """The pieces of text of all tiles, each once; arguments as of ``united``."""
    views = Sightings(sorted(_stitched(sorted(sightings, key=rank)), key=rank))
    is_kept = np.zeros(len(views.items), dtype=bool)
    for index in range(len(views.items)):
        others = views.near(views.items[index], is_kept)
        same = [int(other) for other in others if _is_read(views, index, other)]
        shared = area(common(views.boxes[index], views.boxes[others])).sum()
        if same or shared >= MIN_COVERED * area(views.boxes[index]):
            for other in same:
                views.items[other] = confirmed(views.items[other], [views.items[index]])
            continue
        inside = others[area(common(views.boxes[index], views.boxes[others])) >= MIN_INSIDE * area(views.boxes[others])]
        is_kept[inside] = False  # a longer piece that holds them
        is_kept[index] = True
    kept = [views.items[index] for index in np.flatnonzero(is_kept)]
    return [view for view in kept if not is_refuted(view, tiles)]


def lines_of(pieces: Iterable[FoundObject]) -> list[list[FoundObject]]:
    """The lines of text from top to bottom, the pieces of each from left to right; the same whatever the order.

    Pieces are in one line where their vertical extents overlap by half of the taller one. A text that slopes as a whole is levelled for
    that. Columns are not told apart: what stands at one height is one line.
    """
    pieces = sorted(pieces, key=lambda piece: (piece.box, piece.quad or (), piece.label))
    extents = _level([piece.outlines[0] for piece in pieces])
    middles = [(extent[1] + extent[3]) / 2 for extent in extents]
    tallest = max((extent[3] - extent[1] for extent in extents), default=0.0)
    lines: list[list[int]] = []
    for index in sorted(range(len(pieces)), key=lambda index: middles[index]):
        # A line is as high as the piece that it began with, or one tall piece after the other would lead it down the page.
        reachable = takewhile(lambda line: middles[line[0]] >= middles[index] - tallest, reversed(lines))  # noqa: B023
        line = next((line for line in reachable if _share_line(extents[line[0]], extents[index])), None)
        if line is None:
            lines.append([index])
        else:
            line.append(index)
    return [[pieces[index] for index in sorted(line, key=lambda index: extents[index][0])] for line in lines]


def _level(outlines: Sequence[Sequence[float]]) -> list[tuple[float, float, float, float]]:
    """The boxes of outlines, turned by the slope that most of them have, weighted by their length."""
    edges = [(outline[2] - outline[0], outline[3] - outline[1]) for outline in outlines]
    slopes = sorted((math.atan2(dy, dx), math.hypot(dx, dy)) for dx, dy in edges if abs(math.atan2(dy, dx)) <= MAX_SLOPE)
    slope = _weighted_median(slopes)
    cos, sin = math.cos(slope), math.sin(slope)
    boxes = []
    for outline in outlines:
        xs = [x * cos + y * sin for x, y in zip(outline[::2], outline[1::2], strict=True)]
        ys = [y * cos - x * sin for x, y in zip(outline[::2], outline[1::2], strict=True)]
        boxes.append((min(xs), min(ys), max(xs), max(ys)))
    return boxes


def _weighted_median(values: Sequence[tuple[float, float]]) -> float:
    """The value in the middle of the weight, of sorted pairs of value and weight; 0 for none."""
    half, weight = sum(weight for _, weight in values) / 2, 0.0
    for value, more in values:
        weight += more
        if weight >= half:
            return value
    return 0.0


def _share_line(first: Sequence[float], second: Sequence[float]) -> bool:
    overlap = min(first[3], second[3]) - max(first[1], second[1])
    return overlap > 0 and overlap >= 0.5 * max(first[3] - first[1], second[3] - second[1])


def _is_read(views: Sightings, index: int, other: int | np.intp) -> bool:
    """Whether a better view shows the piece, too."""
    box, better = views.boxes[index], views.boxes[other]
    overlap = iou(box, better)
    is_part = views.is_cut[index] and area(common(box, better)) >= MIN_INSIDE * area(box)
    return bool(overlap >= MIN_IOU or is_part or (overlap > 0 and _letters(views.items[index]) == _letters(views.items[other])))


def _letters(view: Sighting) -> str:
    return "".join(view.found.label.casefold().split())


def _stitched(views: Sequence[Sighting]) -> Iterator[Sighting]:
    """The pieces; of those that are cut at the left or right the ones that continue each other are joined, as long as there are any."""
    yield from (view for view in views if not (view.cut[0] or view.cut[2]))
    parts = Sightings([view for view in views if view.cut[0] or view.cut[2]])
    is_left = np.ones(len(parts.items), dtype=bool)
    for index, view in enumerate(parts.items):
        if not is_left[index]:
            continue
        is_left[index] = False
        while (continued := _continued(view, parts, is_left)) is not None:
            view = continued
        yield view


def _continued(view: Sighting, parts: Sightings, is_left: NDArray[np.bool_]) -> Sighting | None:
    """A piece joined with the first part that continues it at either side, which is taken; None where there is none."""
    for index in parts.near(view, is_left):
        other = parts.items[index]
        joined = _stitch(view, other) or _stitch(other, view)
        if joined is not None:
            is_left[index] = False
            return joined
    return None


def _stitch(first: Sighting, second: Sighting) -> Sighting | None:
    """The piece that begins in one tile and ends in the next one; None where these two are not that."""
    one, two = first.found.box, second.found.box
    is_cut_between = first.cut[2] and second.cut[0] and not first.tiles & second.tiles and one[0] < two[0] < one[2] < two[2]
    if not is_cut_between or not _share_line(one, two):
        return None
    num_shared = (one[2] - two[0]) * (len(first.found.label) / (one[2] - one[0]) + len(second.found.label) / (two[2] - two[0])) / 2
    text = _joined_text(first.found.label, second.found.label, num_shared)
    if text is None:
        return None
    joined = union(first, second)
    a, b = (view.found.quad or view.found.outlines[0] for view in (first, second))
    return replace(joined, found=replace(joined.found, label=text, quad=(*a[:2], *b[2:6], *a[6:])))


def _joined_text(first: str, second: str, num_shared: float) -> str | None:
    """One text of two that overlap; up to two letters at a cut may be misread. None where too few letters are the same.

    Args:
        first: the text that goes on behind its end.
        second: the text that begins before its start.
        num_shared: about how many letters both show, by their places.
    """
    limit = max(2.0, 0.4 * num_shared)
    fewest = 0 if num_shared < 2 else 1 if num_shared < FEW_LETTERS else 2
    fits = [
        (difference + before + after, -count, first[: len(first) - after] + second[before + count :])
        for after in range(min(3, len(first)))
        for before in range(min(3, len(second)))
        for count in range(fewest, min(len(first) - after, len(second) - before) + 1)
        if first[len(first) - after - count : len(first) - after] == second[before : before + count]
        and (count or before + after == 0)
        and (difference := abs(count + before + after - num_shared)) <= limit
    ]
    return min(fits, default=(0, 0, None))[2]
