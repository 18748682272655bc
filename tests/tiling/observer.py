"""A model that sees perfectly: it finds in each tile just what the tile shows, to the bin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from florence2.results import Result
from florence2.tasks.coordinates import dequantize, quantize
from florence2.tiling.tiles import TileBox

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Thing:
    """One object of a picture."""

    label: str
    box: Box


def observe(things: Sequence[Thing], tiles: Sequence[TileBox], *, task: str = "<OD>", min_share: float = 0.0) -> list[Result]:
    """What the model says about each tile.

    Args:
        things: the objects of the picture.
        tiles: its tiles.
        task: what is asked; with quads, labels are cut as their boxes are, as if letters were of one width.
        min_share: a tile that shows less of an object does not show it.
    """
    return [result_of([part for thing in things if (part := seen(thing, tile, min_share))], tile, task) for tile in tiles]


def seen(thing: Thing, tile: TileBox, min_share: float) -> Thing | None:
    """The part of an object that a tile shows, in pixels of the tile."""
    x1, y1, x2, y2 = thing.box
    left, top, right, bottom = max(x1, tile[0]), max(y1, tile[1]), min(x2, tile[2]), min(y2, tile[3])
    share = max(right - left, 0) * max(bottom - top, 0) / ((x2 - x1) * (y2 - y1))
    # A part of less than a few bins has no box.
    if share <= min_share or right - left < 0.005 * (tile[2] - tile[0]) or bottom - top < 0.005 * (tile[3] - tile[1]):
        return None
    return Thing(thing.label, (left - tile[0], top - tile[1], right - tile[0], bottom - tile[1]))


def letters(word: Thing, tile: TileBox) -> Thing | None:
    """The letters of a word that a tile shows whole, in pixels of the tile, where it shows them in their full height."""
    x1, y1, x2, y2 = word.box
    if y1 < tile[1] or y2 > tile[3]:
        return None
    width = (x2 - x1) / len(word.label)
    shown = [index for index in range(len(word.label)) if x1 + index * width >= tile[0] and x1 + (index + 1) * width <= tile[2]]
    if not shown:
        return None
    left, right = max(x1, tile[0]), min(x2, tile[2])
    return Thing(word.label[shown[0] : shown[-1] + 1], (left - tile[0], y1 - tile[1], right - tile[0], y2 - tile[1]))


def result_of(things: Sequence[Thing], tile: TileBox, task: str = "<OD>", scores: Sequence[float] | None = None) -> Result:
    """The result of one tile, its objects in pixels of the tile."""
    size = (tile[2] - tile[0], tile[3] - tile[1])
    is_text = task == "<OCR_WITH_REGION>"
    shapes = [(x1, y1, x2, y1, x2, y2, x1, y2) if is_text else (x1, y1, x2, y2) for x1, y1, x2, y2 in (thing.box for thing in things)]
    bins = [quantize(shape, size) for shape in shapes]
    pixels = [dequantize(one, size) for one in bins]
    return Result(
        task=task,
        kind="quads" if is_text else "boxes",
        image_size=size,
        text="",
        raw=f"<s>{len(things)}</s>",
        boxes=[] if is_text else pixels,
        quads=pixels if is_text else [],
        labels=[thing.label for thing in things],
        bins=bins,
        scores=None if scores is None else list(scores),
        label_scores=None if scores is None else list(scores),
        location_scores=None if scores is None else list(scores),
        token_ids=[0, len(things), 2],
        log_probability=-1.0,
        log_probabilities=[-0.5, -0.25, -0.25],
    )
