"""The frames of animated files, one after the other.

In: the content of a GIF, WebP, PNG or AVIF file. Out: its frames in RGB, upright, as a viewer shows them: what a frame leaves unchanged is
that of the frames before it. Each is decoded when it is its turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from PIL import Image

from florence2.images.modes import to_rgb
from florence2.images.read import UPRIGHT, as_refusals, check_pixels, inspected, open_file, orientation_in

ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
"""The formats that may hold several frames, by Pillow's names."""


def read_frames(data: bytes, name: str) -> Iterator[Image.Image]:
    """All frames of a file in order; one of a file that is no animation.

    Args:
        data: the file.
        name: what messages call it.

    Raises:
        InvalidImage: it holds no readable image, or a frame is damaged; those before it have been given.
        OutOfMemory: there is not enough memory to decode a frame.
    """
    structure = inspected(data, name)
    image = open_file(replace(structure, data=data), name)
    for number in count():
        check_pixels(image.size, name)
        with as_refusals(f"{name}, frame {number}", image.size):
            try:
                image.seek(number)
            except EOFError:
                return
            image.load()
            orientation = orientation_in(structure, image)
            frame = to_rgb(image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image)
        yield frame


def has_frames(data: bytes, name: str) -> bool:
    """Whether a file is an animation of several frames.

    Raises:
        InvalidImage: it holds no readable image.
    """
    structure = inspected(data, name)
    if structure.format not in ANIMATED:
        return False
    return bool(getattr(open_file(replace(structure, data=data), name), "is_animated", False))
