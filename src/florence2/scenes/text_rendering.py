"""Printed words as masks: which words there are, in which fonts, and their ink.

In: a text, a font and the height of its capitals in pixels. Out: a mask cropped to the ink, the corners of its box, and where its
letters end. The fonts are the ones that come with matplotlib. Knows nothing of pictures or colours.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from florence2.extras import requires

LEXICON: tuple[str, ...] = (
    *("ant", "apple", "arm", "bag", "ball", "bear", "bed", "bee", "bell", "bird", "boat", "book", "bowl", "box", "bread"),
    *("bus", "cake", "car", "cat", "chair", "clock", "coat", "cow", "cup", "desk", "dog", "door", "drum", "egg", "fan"),
    *("fish", "flag", "fork", "frog", "gate", "goat", "hill", "horse", "house", "key", "king", "lamp", "leaf", "lion", "map"),
    *("milk", "nest", "owl", "pen", "piano", "plane", "queen", "rain", "road", "rope", "shoe", "snow", "sun", "tent"),
    *("tiger", "train", "tree", "van", "wave", "wolf", "zebra"),
)
FONTS: tuple[str, ...] = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "STIXGeneral", "STIXGeneralBol"),
)


def printed_ink(text: str, font: str, cap_height: int, degrees: float = 0.0) -> tuple[Image.Image, np.ndarray]:
    """A printed word as a mask, and the corners of its ink about the mask's centre.

    Args:
        text: what to print.
        font: name out of ``FONTS``.
        cap_height: height of a capital letter in pixels.
        degrees: rotation, clockwise.

    Returns:
        A grey mask, 255 where there is ink, and four x, y pairs in pixels, clockwise from the text's own top left.

    Raises:
        MissingExtra: the package that brings the fonts is not installed.
    """
    drawn_font = _font(font, cap_height)
    left, top, right, bottom = (int(edge) for edge in drawn_font.getbbox(text))
    width, height = right - left, bottom - top
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).text((-left, -top), text, fill=255, font=drawn_font)
    corners = np.array([(-width, -height), (width, -height), (width, height), (-width, height)]) / 2
    if degrees:
        radians = math.radians(degrees)
        corners = corners @ np.array([[math.cos(radians), math.sin(radians)], [-math.sin(radians), math.cos(radians)]])
        mask = mask.rotate(-degrees, Image.Resampling.BICUBIC, expand=True)
    return mask, corners


def letter_ends(text: str, font: str, cap_height: int) -> tuple[float, ...]:
    """The right end of each letter in the printed word, as a fraction of the word's width; the last is 1."""
    drawn_font = _font(font, cap_height)
    left, _, right, _ = drawn_font.getbbox(text)
    ends = [(drawn_font.getlength(text[: index + 1]) - left) / (right - left) for index in range(len(text))]
    return (*(min(1.0, max(0.0, end)) for end in ends[:-1]), 1.0)


@functools.lru_cache(maxsize=1024)
def _font(name: str, cap_height: int) -> ImageFont.FreeTypeFont:
    """A font whose capitals are about ``cap_height`` pixels high."""
    path = str(_fonts_folder() / f"{name}.ttf")
    probe = ImageFont.truetype(path, 200).getbbox("H")
    return ImageFont.truetype(path, max(1, round(cap_height * 200 / (probe[3] - probe[1]))))


@functools.lru_cache(maxsize=1)
def _fonts_folder() -> Path:
    with requires("synthetic", "rendering words"):
        import matplotlib
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"
