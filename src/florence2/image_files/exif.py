"""The orientation of a picture, from its EXIF or XMP block.

In: the bytes of a block, in whichever file it was. Out: 1 to 8, or None where it says nothing that can be read. One tag is looked
for; nothing else of the block is read. Source: Exif 2.32, section 4.6.4.A; TIFF 6.0, section 2.
"""

from __future__ import annotations

import re
import struct

from florence2.image_files.structure import MAX_METADATA_BYTES

ORIENTATION_TAG = 0x0112
_NUMBERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l"}  # TIFF's types of integers that fit into an entry
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def orientation_of(exif: bytes | None, xmp: bytes | None = None) -> int:
    """The orientation that the blocks give, EXIF first; 1 where they give none."""
    value = None if not exif else _from_exif(exif[:MAX_METADATA_BYTES])
    if value is None and xmp:
        match = _XMP_ORIENTATION.search(xmp, 0, MAX_METADATA_BYTES)
        value = int(match[1]) if match else None
    return value if value is not None and 1 <= value <= 8 else 1


def _from_exif(block: bytes) -> int | None:
    """The value of the tag in the first directory."""
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return None
    try:
        (position,) = struct.unpack_from(order + "L", block, 4)
        (count,) = struct.unpack_from(order + "H", block, position)
        entries = block[position + 2 : position + 2 + 12 * count]
        for tag, kind, _, value in struct.iter_unpack(order + "HHL4s", entries[: len(entries) // 12 * 12]):
            if tag == ORIENTATION_TAG and kind in _NUMBERS:
                return struct.unpack_from(order + _NUMBERS[kind], value)[0]
    except struct.error:
        pass
    return None
