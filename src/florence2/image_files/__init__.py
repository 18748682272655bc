"""What the bytes of an image file say about themselves, read without decoding a pixel.

``inspect`` gives a ``Structure``: the format by the bytes, the size, the EXIF orientation, what decoding will cost, and the same
picture without what its pixels do not need (texts, colour profiles, further frames, fill bytes). What no valid
picture needs is refused here, by counting. ``is_read`` looks at the first bytes alone, ``describe`` names what is not read. Knows
nothing of Pillow.
"""

from __future__ import annotations

from florence2.image_files.detect import FORMATS, PICTURE_NAME, READ_FORMATS, START_BYTES, describe, format_of, inspect, is_picture, is_read
from florence2.image_files.structure import MAX_PIXELS, Structure
from florence2.image_files.tiff import page_positions

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "PICTURE_NAME",
    "READ_FORMATS",
    "START_BYTES",
    "Structure",
    "describe",
    "format_of",
    "inspect",
    "is_picture",
    "is_read",
    "page_positions",
]
