"""Boxes of data sets: what labelling tools write, checked and kept within its picture.

In: numbers of a file, in pixels of the upright picture. Out: a ``Box``, or what is wrong with it; and boxes as the model writes
them. A box that reaches a little out of its picture, as tools leave it, is cut at the edge and counted. Knows no files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from florence2.errors import DatasetError
from florence2.tasks.coordinates import quantize
from florence2.tasks.prompt import shortened
from florence2.tasks.vocabulary import location_token

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""

CLIPPED = "boxes that reached up to 2 pixels or 0.5 % out of their images and were cut at the edge"
# How far a box may reach out of its picture: so many pixels, or this share of the side where that is more.
_SLACK, _SLACK_SHARE = 2.0, 0.005
_ROUNDING = 1e-6  # of sums like x + width, in 64-bit floats
_TOLD_FROM = 1e-3
_FRACTION = 1.01
_LARGEST = 1e9
_NUMBER = re.compile(r"\s*[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?\s*", re.ASCII)


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a number that pixels can have."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST


def number_of(text: str) -> float | None:
    """The number that a text says, in plain or scientific notation; None where it is none, or none that pixels can have."""
    number = float(text) if _NUMBER.fullmatch(text) else None
    return number if is_number(number) else None


def check_box(values: Any, size: tuple[int, int], notices: Counter[str]) -> Box:
    """A box x1, y1, x2, y2 in pixels, kept within its picture.

    Args:
        values: what the file holds.
        size: width and height of the picture.
        notices: gets one more ``CLIPPED`` where the box reached out of it.

    Raises:
        DatasetError: not four numbers in that order, fractions of the picture, or outside it.
    """
    if not isinstance(values, (list, tuple)) or len(values) != 4 or not all(map(is_number, values)):
        raise DatasetError(f"a box is four numbers x1, y1, x2, y2 in pixels, got {shortened(values)}")
    refuse_fractions(values, size)
    x1, y1, x2, y2 = (float(value) for value in values)
    if not (x1 < x2 and y1 < y2):
        raise DatasetError(f"a box is x1, y1, x2, y2 in pixels with x1 < x2 and y1 < y2, got {list(values)}")
    return clip((x1, y1, x2, y2), size, notices)


def clip(box: Box, size: tuple[int, int], notices: Counter[str]) -> Box:
    """A box within its picture; arguments and errors as in ``check_box``."""
    slack = [max(_SLACK, _SLACK_SHARE * side) + _ROUNDING for side in size]
    kept = [min(max(value, 0.0), float(size[index % 2])) for index, value in enumerate(box)]
    beyond = [abs(value - inside) for value, inside in zip(box, kept, strict=True)]
    if any(far > slack[index % 2] for index, far in enumerate(beyond)) or not (kept[0] < kept[2] and kept[1] < kept[3]):
        raise DatasetError(f"the box {_shown(box)} lies outside its image of {size[0]} x {size[1]} pixels")
    if max(beyond) > _TOLD_FROM:
        notices[CLIPPED] += 1
    return kept[0], kept[1], kept[2], kept[3]


def refuse_fractions(values: Sequence[float], size: tuple[int, int]) -> None:
    """Say that boxes are in pixels.

    Raises:
        DatasetError: no number is larger than 1, as in boxes that are fractions of their picture.
    """
    if max(size) > 1 and all(abs(value) <= _FRACTION for value in values):
        raise DatasetError(
            f"the box {_shown(values)} looks like fractions of its image (no number is larger than 1); "
            f"boxes are in pixels: multiply by {size[0]} and {size[1]}"
        )


def _shown(values: Sequence[float]) -> str:
    """Numbers for a message, without the digits that arithmetic adds."""
    return str([float(f"{value:.6g}") if isinstance(value, float) else value for value in values])


def write_boxes(things: Sequence[tuple[str, Sequence[float]]], size: tuple[int, int]) -> str:
    """Labels and boxes in pixels as the model writes them."""
    bins = iter(quantize([value for _, box in things for value in box], size))
    return "".join(label + "".join(location_token(next(bins)) for _ in box) for label, box in things)
