"""The structure of HEIC and HEIF files, the pictures of phones: the sizes that their boxes claim.

The boxes around the property list are gone through by their lengths; the decoder reads the rest, and refuses pixels that are more than
the claim. A picture in tiles has a size for the tiles and one for the whole, a file of several one for each: the largest counts. Source:
ISO/IEC 14496-12 and 23008-12.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from florence2.image_files.structure import MAX_PARTS, Structure, refuse, refuse_parts

HEIF = re.compile(rb"....ftyp(hei[cfmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL)
# The boxes on the way to the sizes, each with the bytes between its header and the first box in it.
_PATH = ((b"meta", 4), (b"iprp", 0), (b"ipco", 0))
MAX_ITEMS = 2**16


def read_heif(data: bytes) -> Structure:
    """The structure of a HEIF file.

    Raises:
        InvalidImage: it claims no size, or has more parts than any valid picture has.
    """
    start, end = 0, len(data)
    for kind, skipped in _PATH:
        found = next(((first, last) for name, first, last in _boxes(data, start, end) if name == kind), None)
        if found is None:
            refuse("the HEIC picture is damaged or incomplete: it says nowhere how large it is")
        start, end = found[0] + skipped, found[1]
        if kind == b"meta":
            _check_items(data, start, end)
    sizes = [
        (int.from_bytes(data[first + 4 : first + 8], "big"), int.from_bytes(data[first + 8 : first + 12], "big"))
        for name, first, last in _boxes(data, start, end)
        if name == b"ispe" and last - first >= 12
    ]
    if not sizes:
        refuse("the HEIC picture is damaged or incomplete: it says nowhere how large it is")
    size = max(sizes, key=lambda one: one[0] * one[1])
    return Structure("HEIF", data, size, work=size[0] * size[1], description="a HEIC picture")


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, beginning and end of the content of each box in a row of boxes."""
    for _ in range(MAX_PARTS):
        if end - start < 8:
            return
        length, name, header = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], 8
        if length == 1:
            length, header = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        last = end if length == 0 else start + length
        if length and (length < header or last > end):  # cut off, or none: for the decoder to say
            return
        yield name, start + header, last
        start = last
    refuse_parts("HEIC picture")


def _check_items(data: bytes, start: int, end: int) -> None:
    """Refuse more pictures, tiles and blocks of metadata than any file has that is meant."""
    for name, first, _ in _boxes(data, start, end):
        if name == b"iinf":
            width = 2 if data[first : first + 1] == b"\0" else 4
            if int.from_bytes(data[first + 4 : first + 4 + width], "big") > MAX_ITEMS:
                refuse_parts("HEIC picture")
