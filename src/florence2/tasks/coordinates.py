"""Pixels to location bins and back.

A bin is 1/1000 of the image's width (for x) or height (for y). Coordinates are flat sequences x, y, x, y, ... in pixels of the original
image. All values are computed in 32-bit floats, as in the reference, so that the resulting integers are equal. Knows neither tokens nor
tasks.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from florence2.errors import InvalidOption
from florence2.location_bins import NUM_BINS

_LARGEST = np.float32(2147483520)
"""The largest 32-bit float that fits a 32-bit integer: the limit for bins far beyond 999, where the reference overflows."""


def check_image_size(image_size: Sequence[int]) -> tuple[int, int]:
    """The size as two positive ints (width, height).

    Raises:
        InvalidOption: it is not two whole numbers of at least 1.
    """
    try:
        width, height = (operator.index(side) for side in image_size)
    except (TypeError, ValueError):
        width = height = 0
    if width < 1 or height < 1:
        raise InvalidOption(
            f"image_size must be (width, height) in whole pixels, both at least 1; got {image_size!r}", field="image_size"
        ) from None
    return width, height


def quantize(pixels: Sequence[float], image_size: tuple[int, int]) -> list[int]:
    """The bin of each coordinate, rounded down and clipped to 0..999.

    Args:
        pixels: x, y, x, y, ... in pixels of the image.
        image_size: width and height in pixels.
    """
    values = np.array(pixels, dtype=np.float32)
    for axis, side in enumerate(image_size):
        values[axis::2] /= np.float32(side / NUM_BINS)
    return np.clip(np.floor(values), 0, NUM_BINS - 1).astype(np.int64).tolist()


def dequantize(bins: Sequence[float], image_size: tuple[int, int]) -> list[int]:
    """The pixel in the middle of each bin, truncated to an integer.

    Args:
        bins: x, y, x, y, ..., usually 0..999; larger ones are outside the image. Fractions of a bin are allowed.
        image_size: width and height in pixels.
    """
    values = np.array(bins, dtype=np.float32) + np.float32(0.5)
    for axis, side in enumerate(image_size):
        values[axis::2] *= np.float32(side / NUM_BINS)
    return np.minimum(values, _LARGEST).astype(np.int64).tolist()
