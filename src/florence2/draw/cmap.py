"""The characters that a font file has, from its character map.

In: the path or the content of a TrueType or OpenType file, or of a collection of them. Out: a map that tells for each character
whether there is a glyph. Reads no other table. Source: OpenType specification, ``cmap``, formats 4, 12 and 13.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

# Platform and encoding of Unicode subtables, those with most characters first.
_UNICODE = ((3, 10), (0, 6), (0, 4), (3, 1), (0, 3), (0, 2), (0, 1), (0, 0))
_MAX_BYTES = 2**24  # no map is longer


class CharacterMap:
    """The characters of one font."""

    def __init__(self, starts: NDArray[np.int64], ends: NDArray[np.int64], glyphs: _Glyphs | None = None) -> None:
        self._starts, self._ends, self._glyphs = starts, ends, glyphs

    def __contains__(self, character: str) -> bool:
        """Whether the font has a glyph for a character."""
        code = ord(character)
        index = int(np.searchsorted(self._ends, code))
        if index == len(self._ends) or self._starts[index] > code:
            return False
        return self._glyphs is None or self._glyphs.of(index, code - int(self._starts[index]), code) != 0


class _Glyphs:
    """The glyphs of format 4, whose ranges may have gaps."""

    def __init__(self, deltas: NDArray[np.int64], offsets: NDArray[np.int64], words: NDArray[np.uint16]) -> None:
        self._deltas, self._offsets, self._words = deltas, offsets, words

    def of(self, index: int, offset_in_range: int, code: int) -> int:
        """The glyph index for a range, the offset in it, and the character code; 0 for none."""
        offset, delta = int(self._offsets[index]), int(self._deltas[index])
        if offset == 0:
            return (code + delta) % 65536
        word = index + offset // 2 + offset_in_range  # the offset is in bytes from its own position
        glyph = int(self._words[word]) if word < len(self._words) else 0
        return (glyph + delta) % 65536 if glyph else 0


def read_map(font: str | Path | bytes, index: int = 0) -> CharacterMap | None:
    """The character map of a font file; None if there is no readable one.

    Args:
        font: the file, or its content.
        index: the index of the font in a collection.
    """
    try:
        with io.BytesIO(font) if isinstance(font, bytes) else Path(font).open("rb") as file:
            return _parsed(_table(file, index))
    except (OSError, ValueError, struct.error, IndexError):
        return None


def _table(file: BinaryIO, index: int) -> bytes:
    """The table ``cmap`` of a font."""
    start = 0
    if file.read(4) == b"ttcf":
        file.seek(12 + 4 * index)
        start = struct.unpack(">I", file.read(4))[0]
    file.seek(start + 4)
    num_tables = struct.unpack(">H", file.read(2))[0]
    file.seek(start + 12)
    for _ in range(num_tables):
        tag, _, offset, length = struct.unpack(">4sIII", file.read(16))
        if tag == b"cmap" and length <= _MAX_BYTES:
            file.seek(offset)
            return file.read(length)
    raise ValueError("no character map")


def _parsed(table: bytes) -> CharacterMap | None:
    num_subtables = struct.unpack_from(">H", table, 2)[0]
    records = [struct.unpack_from(">HHI", table, 4 + 8 * number) for number in range(num_subtables)]
    offsets = {(platform, encoding): offset for platform, encoding, offset in records}
    for key in _UNICODE:
        if key in offsets and (found := _subtable(table[offsets[key] :])) is not None:
            return found
    return None


def _subtable(data: bytes) -> CharacterMap | None:
    layout = struct.unpack_from(">H", data)[0]
    if layout == 4:
        return _format_4(data)
    if layout in (12, 13):
        num_groups = struct.unpack_from(">I", data, 12)[0]
        groups = np.frombuffer(data, ">u4", count=num_groups * 3, offset=16).reshape(-1, 3).astype(np.int64)
        groups = groups[groups[:, 2] > 0] if layout == 13 else groups
        return CharacterMap(groups[:, 0], groups[:, 1])
    return None


def _format_4(data: bytes) -> CharacterMap:
    num_ranges = struct.unpack_from(">H", data, 6)[0] // 2
    words = np.frombuffer(data, ">u2", count=(len(data) - 14) // 2, offset=14)
    ends, starts, deltas, offsets = (
        words[start : start + num_ranges].astype(np.int64) for start in (0, *(number * num_ranges + 1 for number in (1, 2, 3)))
    )
    last = (np.arange(num_ranges) + offsets // 2 + ends - starts).max(initial=0, where=offsets > 0)
    glyphs = words[3 * num_ranges + 1 :][: last + 1].astype(np.uint16)  # other maps follow; the stored length is wrong in some fonts
    return CharacterMap(starts, ends, _Glyphs(deltas, offsets, glyphs))
