"""The structure of TIFF files, BigTIFF included; of several pages the first, or one that is named.

The page's directory is read and written anew behind the file, with only the tags that make pixels: so neither metadata nor
other pages are ever looked at, and strips and tiles are counted first. Source: TIFF 6.0; BigTIFF as libtiff has it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from florence2.image_files.exif import orientation_of
from florence2.image_files.structure import MAX_METADATA_BYTES, MAX_STRIPS, Structure, refuse

# Size, bits, compression, colours, strips, tiles, fax and JPEG options, sample formats, YCbCr: what decoders read.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _ORIENTATION, _SAMPLES, _FORMAT = 256, 257, 258, 259, 274, 277, 339
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, _XMP = 273, 279, 324, 325, 700
_KEPT = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338, 339}
    | {340, 341, 347, *range(512, 522), 529, 530, 531, 532, 32995, 32996, 32997, 32998, 34925, 34926, 50674}
)
# Tags that have one value; Pillow warns of more.
_SINGLE = frozenset([254, 255, 256, 257, 259, 266, 274, 277, 278, 284, 292, 293, 317, 322, 323, 332, 512, 513, 514, 515, 531])
_BYTES_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q"}
_FORMATS = {2: "signed integers", 3: "floating point", 5: "complex integers", 6: "complex floating point"}
_MAX_ENTRIES = 4096
MAX_TIFF_PAGES = 2**16
_MAX_ALL_ENTRIES = 2**21
_SUBFILE = 254
_COLOURS, _CMYK, _PROFILE = 262, 5, 34675
MAX_PROFILE_BYTES = 2**22
_NO_PAGE = 0b101  # a smaller copy of another page, or a mask


class _Entry(NamedTuple):
    """A tag as the directory has it; ``value`` is the value itself or where it lies."""

    tag: int
    kind: int
    num_values: int
    value: bytes


@dataclass(frozen=True)
class _Layout:
    """How numbers are written: byte order, and the widths of TIFF or BigTIFF."""

    order: str
    is_big: bool

    @property
    def offset(self) -> str:
        """A position in the file."""
        return self.order + ("Q" if self.is_big else "L")

    @property
    def entry(self) -> str:
        """An entry of the directory."""
        return self.order + ("HHQ8s" if self.is_big else "HHL4s")

    @property
    def number(self) -> str:
        """The number of entries."""
        return self.order + ("Q" if self.is_big else "H")

    @property
    def room(self) -> int:
        """Bytes of a value that stands in its entry."""
        return 8 if self.is_big else 4


def page_positions(data: bytes) -> list[int]:
    """Where each page of a TIFF file begins; smaller copies of a page, such as thumbnails, and masks are none.

    Raises:
        InvalidImage: it has more than any file that is meant has.
    """
    return _pages(data, _layout(data))


def read_tiff(data: bytes, at: int | None = None) -> Structure:
    """The structure of a page of a TIFF file.

    Args:
        data: the file.
        at: where the page begins; None for the first page.

    Raises:
        InvalidImage: more tags, strips or tiles than any valid picture has, or strips that share their bytes.
    """
    layout = _layout(data)
    try:
        entries = _directory(data, layout, _first(data, layout) if at is None else at)
    except struct.error:
        return Structure("TIFF", data, None)  # for the decoder to say
    kept = {entry.tag: entry for entry in reversed(entries) if entry.tag in _KEPT and _is_inside(data, entry, layout)}
    _check_strips(data, kept, layout)
    _keep_profile(data, kept, entries, layout)
    width, height = (_numbers(data, kept.get(tag), layout)[:1] for tag in (_WIDTH, _HEIGHT))
    if _ORIENTATION not in kept:
        _add_orientation(data, kept, entries, layout)
    size = (width[0], height[0]) if width and height else None
    clean = _with_directory(data, [kept[tag] for tag in sorted(kept)], layout)
    return Structure("TIFF", clean, size, work=size[0] * size[1] if size else 0, description=_description(data, kept, layout))


def _layout(data: bytes) -> _Layout:
    return _Layout("<" if data[:2] == b"II" else ">", 43 in (data[2], data[3]))


def _first(data: bytes, layout: _Layout) -> int:
    """Where the first directory lies."""
    return struct.unpack_from(layout.offset, data, 8 if layout.is_big else 4)[0]


def _pages(data: bytes, layout: _Layout) -> list[int]:
    """Where the directories of the pages lie; a chain that leads back or out of the file ends there."""
    positions: list[int] = []
    seen: set[int] = set()
    num_entries = 0
    try:
        position = _first(data, layout)
        while position and position not in seen:
            if len(seen) >= MAX_TIFF_PAGES or num_entries > _MAX_ALL_ENTRIES:
                refuse(f"the TIFF has more than {MAX_TIFF_PAGES} pages, or far more tags than there are kinds of; split it")
            seen.add(position)
            entries = _directory(data, layout, position)
            num_entries += len(entries)
            kinds = [_numbers(data, entry, layout) for entry in entries if entry.tag == _SUBFILE and entry.num_values == 1]
            if not positions or not any(kind[:1] and kind[0] & _NO_PAGE for kind in kinds):
                positions.append(position)
            end = position + struct.calcsize(layout.number) + len(entries) * struct.calcsize(layout.entry)
            (position,) = struct.unpack_from(layout.offset, data, end)
    except struct.error:
        pass
    return positions


def _directory(data: bytes, layout: _Layout, position: int) -> list[_Entry]:
    """The entries of a directory."""
    if position > len(data):
        raise struct.error
    (count,) = struct.unpack_from(layout.number, data, position)
    if count > _MAX_ENTRIES:
        refuse(f"the TIFF has {count} tags, far more than there are kinds of; save it anew")
    start, width = position + struct.calcsize(layout.number), struct.calcsize(layout.entry)
    table = data[start : start + count * width]
    return [_Entry(*fields) for fields in struct.iter_unpack(layout.entry, table[: len(table) // width * width])]


def _is_inside(data: bytes, entry: _Entry, layout: _Layout) -> bool:
    """Whether a tag's value lies in the file."""
    num_bytes = entry.num_values * _BYTES_OF_TYPE.get(entry.kind, 0)
    return 0 < num_bytes <= layout.room or 0 < num_bytes <= len(data) - struct.unpack(layout.offset, entry.value)[0]


def _numbers(data: bytes, entry: _Entry | None, layout: _Layout) -> tuple[int, ...]:
    """A tag's value where it is integers; none where it is missing or anything else."""
    if entry is None or entry.kind not in _INTEGERS:
        return ()
    form = f"{layout.order}{entry.num_values}{_INTEGERS[entry.kind]}"
    if struct.calcsize(form) <= layout.room:
        return struct.unpack_from(form, entry.value)
    return struct.unpack_from(form, data, struct.unpack(layout.offset, entry.value)[0])


def _check_strips(data: bytes, kept: dict[int, _Entry], layout: _Layout) -> None:
    """Refuse more strips or tiles than are worth their cost, and those that have one piece of the file decoded again and again."""
    for offsets, lengths in ((_STRIPS, _STRIP_BYTES), (_TILES, _TILE_BYTES)):
        count = max(kept[tag].num_values if tag in kept else 0 for tag in (offsets, lengths))
        if count > MAX_STRIPS:
            refuse(f"the TIFF is cut into {count} strips or tiles, more than {MAX_STRIPS}; save it with larger ones")
        # A length may be wrong or endless: no strip is longer than the rest of the file.
        strips = zip(_numbers(data, kept.get(offsets), layout), _numbers(data, kept.get(lengths), layout), strict=False)
        if sum(min(length, max(0, len(data) - offset)) for offset, length in strips) > 2 * len(data) + 2**20:
            refuse("the TIFF's strips lie upon each other: they have more bytes than the file; save it anew")


def _add_orientation(data: bytes, kept: dict[int, _Entry], entries: list[_Entry], layout: _Layout) -> None:
    """The orientation from XMP as a tag, where there is no tag of its own."""
    xmp = next((entry for entry in entries if entry.tag == _XMP and _is_inside(data, entry, layout)), None)
    if xmp is not None and layout.room < xmp.num_values <= MAX_METADATA_BYTES:
        start = struct.unpack(layout.offset, xmp.value)[0]
        orientation = orientation_of(None, data[start : start + xmp.num_values])
        kept[_ORIENTATION] = _Entry(_ORIENTATION, 3, 1, struct.pack(layout.order + "H", orientation).ljust(layout.room, b"\0"))


def _keep_profile(data: bytes, kept: dict[int, _Entry], entries: list[_Entry], layout: _Layout) -> None:
    """Keep the colour profile of a picture for print, where it can be one."""
    if _numbers(data, kept.get(_COLOURS), layout)[:1] == (_CMYK,):
        profile = next((entry for entry in entries if entry.tag == _PROFILE and _is_inside(data, entry, layout)), None)
        if profile is not None and layout.room < profile.num_values <= MAX_PROFILE_BYTES:
            kept[_PROFILE] = profile


def _with_directory(data: bytes, entries: list[_Entry], layout: _Layout) -> bytes:
    """The file with a new directory behind it, its only one."""
    position, header = len(data) + len(data) % 2, 8 if layout.is_big else 4
    table = b"".join(struct.pack(layout.entry, *_single(data, entry, layout)) for entry in entries)
    end = struct.pack(layout.number, len(entries)) + table + struct.pack(layout.offset, 0)
    start = struct.pack(layout.offset, position)
    return b"".join([data[:header], start, data[header + len(start) :], b"\0" * (len(data) % 2), end])


def _single(data: bytes, entry: _Entry, layout: _Layout) -> _Entry:
    """A tag that has one value with its first; any other as it is."""
    values = _numbers(data, entry, layout) if entry.tag in _SINGLE and entry.num_values > 1 else ()
    if not values:
        return entry
    return entry._replace(num_values=1, value=struct.pack(layout.order + _INTEGERS[entry.kind], values[0]).ljust(layout.room, b"\0"))


def _description(data: bytes, kept: dict[int, _Entry], layout: _Layout) -> str:
    """The kind of picture: channels, bits, and how numbers are written."""
    bits = _numbers(data, kept.get(_BITS), layout) or (1,)
    channels = (_numbers(data, kept.get(_SAMPLES), layout) or (len(bits),))[0]
    form = (_numbers(data, kept.get(_FORMAT), layout) or (1,))[0]
    compression = (_numbers(data, kept.get(_COMPRESSION), layout) or (1,))[0]
    kind = f" {_FORMATS[form]}" if form in _FORMATS else ""
    plural = "channel" if channels == 1 else "channels"
    return f"a TIFF of {channels} {plural} of {bits[0]} bits{kind} (compression {compression})"
