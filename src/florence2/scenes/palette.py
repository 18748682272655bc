"""The colours of things on a scene, and how well they stand out from each other.

In: colours as red, green and blue from 0 to 255. Out: distances between them and slight variations. Knows nothing of what
is drawn in them.
"""

from __future__ import annotations

import math

import numpy as np

Rgb = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
    "red": (214, 28, 34),
    "green": (34, 150, 52),
    "blue": (32, 72, 214),
    "yellow": (244, 222, 32),
    "orange": (250, 132, 10),
    "purple": (124, 34, 164),
    "pink": (250, 134, 190),
    "black": (16, 16, 18),
    "white": (248, 248, 246),
}


def contrast(a: Rgb, b: Rgb) -> float:
    """The perceived distance of two colours, 0 to about 765 (the "redmean" approximation)."""
    red = (a[0] + b[0]) / 512
    d_red, d_green, d_blue = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return math.sqrt((2 + red) * d_red**2 + 4 * d_green**2 + (3 - red) * d_blue**2)


def jittered(rng: np.random.Generator, rgb: Rgb, amount: int) -> Rgb:
    """A colour with each channel moved by at most ``amount``."""
    steps = rng.integers(-amount, amount + 1, 3).tolist()
    red, green, blue = (min(255, max(0, value + step)) for value, step in zip(rgb, steps, strict=True))
    return red, green, blue


def brightness_apart(a: Rgb, b: Rgb) -> float:
    """The difference in brightness of two colours, 0 to 255; letters need it more than another hue."""
    return abs(0.299 * (a[0] - b[0]) + 0.587 * (a[1] - b[1]) + 0.114 * (a[2] - b[2]))
