"""Location bins: how Florence-2 writes coordinates, in thousandths of an image's width or height. Knows neither tokens nor images."""

from __future__ import annotations

import re

NUM_BINS = 1000
_REGION = re.compile(r"((?:<loc_\d{1,3}>){4})\s*$")


def middle(location_bin: int, side: int) -> float:
    """The coordinate in the middle of a bin, in pixels, not rounded.

    Args:
        location_bin: usually 0 to 999; larger ones lie outside of the image.
        side: the image's width for an x, its height for a y.
    """
    return (location_bin + 0.5) * side / NUM_BINS


def split_region(text: str, image_size: tuple[int, int]) -> tuple[str, tuple[float, float, float, float] | None]:
    """A text without the location tokens of its region, and that region in pixels; None where the text does not end in one.

    Args:
        text: an answer about a region.
        image_size: width and height of the image in pixels.
    """
    region = _REGION.search(text)
    if region is None:
        return text.strip(), None
    left, top, right, bottom = (middle(int(number), image_size[axis % 2]) for axis, number in enumerate(re.findall(r"\d+", region[1])))
    return text[: region.start()].strip(), (left, top, right, bottom)
