"""Pieces of text in reading order, and those of several tiles made one text.

In: pieces with their quads. Out: lines from top to bottom, each from left to right; and the pieces of all tiles, each once. A piece that a
tile cuts loses to the same piece read whole; the two cut parts of a piece are joined by the letters that both have read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from florence2.results import FoundObject
from florence2.tiling.grouping import MIN_INSIDE, is_refuted, rank, union, with_best_scores
from florence2.tiling.sightings import Sighting, Sightings, area, common, iou, touches
from florence2.tiling.tiles import TileBox

MIN_IOU = 0.4
"""From here on two views of a piece are of one; boxes of text are low, and a few pixels are a large share of them."""
MIN_COVERED = 0.6
"""A piece of which this share is covered by closer views has been read there."""
MIN_LETTERS = 2
"""So many letters that two cut pieces have both read join them."""
MAX_SLOPE = math.radians(40)
"""Lines that rise or fall more steeply are read as if they were level."""


def read_together(sightings: Iterable[Sighting], tiles: Sequence[TileBox]) -> list[Sighting]:
    """The pieces of text of all tiles, each once; arguments as of ``united``."""
    views = Sightings(sorted(_stitched(sorted(sightings, key=rank)), key=rank))
    is_kept = np.zeros(len(views.items), dtype=bool)
    for index in range(len(views.items)):
        others = np.flatnonzero(is_kept & touches(views.boxes[index], views.boxes) & ~views.are_in(views.items[index].tiles))
        same = [int(other) for other in others if _is_read(views, index, other)]
        shared = area(common(views.boxes[index], views.boxes[others])).sum()
        if same or shared >= MIN_COVERED * area(views.boxes[index]):
            for other in same:
                item = views.items[other]
                views.items[other] = replace(item, found=with_best_scores(item.found, [views.items[index].found]))
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
    lines: list[list[int]] = []
    for index in sorted(range(len(pieces)), key=lambda index: extents[index][1] + extents[index][3]):
        # A line is as high as the piece that it began with, or one tall piece after the other would lead it down the page.
        line = next((line for line in reversed(lines) if _share_line(extents[line[0]], extents[index])), None)
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


def _stitched(views: Iterable[Sighting]) -> list[Sighting]:
    """The pieces; those cut at the right and at the left that are one are joined, as long as there are any."""
    done, left = [], list(views)
    while left:
        view = left.pop(0)
        for index, other in enumerate(left):
            joined = _stitch(view, other) or _stitch(other, view)
            if joined is not None:
                del left[index]
                left.insert(0, joined)
                break
        else:
            done.append(view)
    return done


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
    fits = [
        (abs(count + len(first) - end + start - num_shared), -count, first[:end] + second[start + count :])
        for end in range(len(first), max(len(first) - 3, 0), -1)
        for start in range(min(3, len(second)))
        for count in range(MIN_LETTERS, min(end, len(second) - start) + 1)
        if first[end - count : end] == second[start : start + count]
    ]
    difference, _, text = min(fits, default=(math.inf, 0, ""))
    return text if difference <= max(2.0, 0.4 * num_shared) else None
