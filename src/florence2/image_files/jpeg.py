"""The structure of JPEG files, of several pictures in one (MPO) the first.

Segments are gone through by their lengths, entropy-coded data by its next marker. Dropped are fill bytes, comments, thumbnails, colour
profiles but those of pictures for print (CMYK), and what stands behind the end; kept is all that a decoder reads. Source: ITU-T T.81,
annex B.
"""

from __future__ import annotations

import re

from florence2.image_files.exif import orientation_of
from florence2.image_files.structure import MAX_PARTS, Structure, refuse, refuse_parts

_FILL = re.compile(rb"\xff+")
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # neither a stuffed byte, nor a restart, nor fill
_END_OR_FILL = re.compile(rb"\xff[^\x00\xd0-\xd7]")
_WINDOW = 2**16  # bytes searched in one go, between which other threads may run

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_BARE = frozenset([*range(0x02), *range(0xD0, 0xD9)])  # markers without a segment behind them
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN_FRAMES = frozenset([0xC0, 0xC1, 0xC2])
# JFIF and Adobe say what the channels are; the orientation is read from the rest, and nothing else.
_DROPPED = (frozenset(range(0xE0, 0xF0)) | {0xFE}) - {0xE0, 0xEE}
_PROFILE = b"ICC_PROFILE\0"
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"

# Encoders write up to a dozen scans, hand-made scripts a few dozen. Each goes through the whole picture, at 20 ns a pixel.
MAX_SCANS = 100
MAX_PROFILE_SEGMENTS = 64  # of 64 KiB each; profiles for print have half a megabyte to three
_FREE_SCANS, _MAX_SCANNED_PIXELS = 16, 2**28


def read_jpeg(data: bytes) -> Structure:
    """The structure of a JPEG file.

    Raises:
        InvalidImage: more scans or segments than any valid picture has.
    """
    reader = _Reader(data)
    reader.read()
    return reader.structure()


class _Reader:
    """Goes through one file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._kept = [data[:2]]
        self._size: tuple[int, int] | None = None
        self._frame = self._precision = self._channels = self._num_scans = 0
        self._exif: bytes | None = None
        self._xmp: bytes | None = None
        self._profile: list[bytes] = []

    def read(self) -> None:
        """All segments, up to the end of the picture."""
        data, position = self._data, 2
        for _ in range(MAX_PARTS):
            found = data.find(b"\xff", position)
            match = _FILL.match(data, found) if found >= 0 else None
            if match is None or match.end() == len(data):
                return
            marker, position = data[match.end()], match.end() + 1
            if marker == 0:  # a stuffed byte where no data are
                continue
            if marker in _BARE or marker == _END_OF_IMAGE:
                self._kept.append(bytes([0xFF, marker]))
                if marker == _END_OF_IMAGE:
                    return
                continue
            length = int.from_bytes(data[position : position + 2], "big")
            segment = data[position : position + length]
            if length < 2 or len(segment) < length:
                self._kept.append(bytes([0xFF, marker]) + data[position:])  # cut off: for the decoder to say
                return
            self._take(marker, segment)
            position += length
            if marker == _START_OF_SCAN:
                end, has_fill = self._end_of_scan(position)
                self._kept.append(_without_fill(data[position:end]) if has_fill else data[position:end])
                position = end
        refuse_parts("JPEG")

    def structure(self) -> Structure:
        """What was found."""
        pixels = self._size[0] * self._size[1] if self._size else 0
        work = pixels * max(1, self._num_scans)
        if self._num_scans > MAX_SCANS or (self._num_scans > _FREE_SCANS and work > _MAX_SCANNED_PIXELS):
            refuse(
                f"the JPEG's {pixels} pixels come in {self._num_scans} scans, which takes too long to decode; save it with the usual "
                "ten, or as a baseline JPEG"
            )
        return Structure(
            "JPEG",
            b"".join([self._kept[0], *(self._profile if self._channels == 4 else ()), *self._kept[1:]]),
            self._size,
            orientation_of(self._exif, self._xmp),
            work,
            is_plain=self._frame in _HUFFMAN_FRAMES and self._channels <= 3,
            description=None if self._precision in (0, 8) else f"a JPEG of {self._precision} bits a channel",
        )

    def _take(self, marker: int, segment: bytes) -> None:
        """Keep a segment, or what is wanted of it."""
        if marker == 0xE1 and segment.startswith(_EXIF, 2) and self._exif is None:
            self._exif = segment[2:]
        elif marker == 0xE1 and segment.startswith(_XMP, 2):
            self._xmp = segment[2 + len(_XMP) :]
        elif marker == 0xE2 and segment.startswith(_PROFILE, 2) and len(self._profile) < MAX_PROFILE_SEGMENTS:
            self._profile.append(bytes([0xFF, marker]) + segment)
        if marker in _DROPPED:
            return
        if marker in _FRAMES and len(segment) >= 8:
            self._frame, self._precision, self._channels = marker, segment[2], segment[7]
            self._size = (int.from_bytes(segment[5:7], "big"), int.from_bytes(segment[3:5], "big"))
        self._num_scans += marker == _START_OF_SCAN
        self._kept.append(bytes([0xFF, marker]) + segment)

    def _end_of_scan(self, position: int) -> tuple[int, bool]:
        """Where the marker stands that ends a scan's data, and whether there may be fill bytes in front of it."""
        pattern = _END_OR_FILL  # both in one go: searching is most of what reading a file takes
        for start in range(position, len(self._data), _WINDOW):
            found = pattern.search(self._data, start, start + _WINDOW + 1)
            if found and found[0] == b"\xff\xff":
                pattern = _END_OF_SCAN
                found = pattern.search(self._data, found.start(), start + _WINDOW + 1)
            if found:
                return found.start(), pattern is _END_OF_SCAN
        return len(self._data), pattern is _END_OF_SCAN


def _without_fill(scan: bytes) -> bytes:
    """A scan's data without fill bytes, which may stand before any marker."""
    while b"\xff\xff" in scan:
        scan = scan.replace(b"\xff\xff", b"\xff")
    return scan
