"""Location bins: how Florence-2 writes coordinates, in thousandths of an image's width or height. Knows neither tokens nor images."""

from __future__ import annotations

NUM_BINS = 1000


def middle(location_bin: int, side: int) -> float:
    """The coordinate in the middle of a bin, in pixels, not rounded.

    Args:
        location_bin: usually 0 to 999; larger ones lie outside of the image.
        side: the image's width for an x, its height for a y.
    """
    return (location_bin + 0.5) * side / NUM_BINS
