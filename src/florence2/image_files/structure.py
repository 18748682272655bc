"""The record that every reader of a format fills, and the bounds that hold for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from florence2.errors import InvalidImage

MAX_PIXELS = 178_956_970  # Pillow's limit too: a quarter of a GiB at 24 bits, doubled
# Each part of a file costs its reader and Pillow about a microsecond in the interpreter. A picture of 20 MB in the smallest parts
# that encoders write (8 kB in PNG, 255 bytes in GIF) has fewer than half as many.
MAX_PARTS = 2**18
# A strip, a tile and a scan each cost 20 microseconds and more.
MAX_STRIPS = 2**16
# Metadata that may hold the orientation: it is read up to this length.
MAX_METADATA_BYTES = 2**20


@dataclass(frozen=True)
class Structure:
    """What the bytes of an image file say.

    Attributes:
        format: Pillow's name of the format.
        data: a file of the same pixels, without what they do not need.
        size: width and height as stored; None where only the decoder finds out.
        orientation: the EXIF value; 1 is upright, and stands for formats whose decoder turns by itself.
        work: the number of pixels that decoding goes through; each scan of a JPEG goes through all.
        is_plain: decoding costs what ``work`` says, lets other threads run, and takes a few bytes a pixel.
        description: the kind of picture, where a decoder may not know it; None for other formats.
    """

    format: str
    data: bytes
    size: tuple[int, int] | None
    orientation: int = 1
    work: int = 0
    is_plain: bool = False
    description: str | None = None


def refuse(message: str) -> NoReturn:
    """Refuse a file for its structure."""
    raise InvalidImage(message, field="image")


def refuse_parts(kind: str) -> NoReturn:
    """Refuse a file in more parts than any valid one has."""
    refuse(f"the {kind} has more than {MAX_PARTS} parts, far more than its picture needs; save it anew")
