"""The structures of GIF, WebP and BMP files, and what of AVIF can be told.

Of animations the first frame is kept. Sources: GIF89a; RFC 9649 (WebP); the BITMAPINFOHEADER family of Windows.
"""

from __future__ import annotations

import struct

from florence2.image_files.exif import orientation_of
from florence2.image_files.structure import MAX_PARTS, Structure, refuse, refuse_parts

_GRAPHIC_CONTROL = 0xF9
# Run-length encoded bitmaps are decoded by the interpreter, at half a microsecond a byte.
_MAX_RLE_BYTES = 2**23
_RLE = (1, 2)
_WEBP_FRAMES = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM")
# No encoder makes longer sides. Pillow collects each row of a decoded canvas in parts of 64 KiB, which takes minutes for a wide one.
_MAX_WEBP_SIDE = 2**14
_ICC_FLAG, _EXIF_FLAG, _XMP_FLAG = 0x20, 0x08, 0x04


def read_gif(data: bytes) -> Structure:
    """The structure of a GIF file: its screen and its first frame.

    Raises:
        InvalidImage: more blocks than any valid picture has.
    """
    width, height = struct.unpack_from("<HH", data.ljust(13, b"\0"), 6)
    table = 3 << ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0
    position, parts, control = 13 + table, 0, b""
    while data[position : position + 1] == b"!":
        end, blocks = _after_blocks(data, position + 2, MAX_PARTS - parts)
        parts += blocks + 1
        # Of several, Pillow goes by the last that has a transparent colour.
        if data[position + 1 : position + 2] == bytes([_GRAPHIC_CONTROL]) and (data[position + 3 : position + 4] or b"\0")[0] & 1:
            control = data[position:end]
        position = end
    if data[position : position + 1] != b",":
        return Structure("GIF", data[:13] + data[13 : 13 + table] + data[position : position + 1], (width, height))
    descriptor = data[position : position + 10].ljust(10, b"\0")
    left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", descriptor, 1)
    colours = 3 << ((flags & 7) + 1) if flags & 0x80 else 0
    end, _ = _after_blocks(data, position + 11 + colours, MAX_PARTS - parts)
    size = (max(width, left + frame_width), max(height, top + frame_height))
    return Structure("GIF", b"".join([data[: 13 + table], control, data[position:end], b";"]), size, work=size[0] * size[1])


def _after_blocks(data: bytes, position: int, max_blocks: int) -> tuple[int, int]:
    """Where a chain of sub-blocks ends, and how many it has."""
    for count in range(max_blocks):
        length = data[position] if position < len(data) else 0
        position += 1 + length
        if not length:
            return position, count
    return refuse_parts("GIF")


def read_webp(data: bytes) -> Structure:
    """The structure of a WebP file: its canvas and its first frame.

    Raises:
        InvalidImage: more chunks than any valid picture has, or a longer side.
    """
    kept: list[bytes] = []
    metadata: dict[bytes, bytes] = {}
    position, has_frame = 12, False
    for _ in range(MAX_PARTS):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + length + length % 2
        chunk = data[position:end] + b"\0" * (position + 8 + length == len(data) and length % 2)
        if kind == b"VP8X" and len(chunk) >= 18:
            kept.append(chunk[:8] + bytes([chunk[8] & ~(_ICC_FLAG | _EXIF_FLAG | _XMP_FLAG)]) + chunk[9:])
        elif kind in _WEBP_FRAMES or (kind == b"ANMF" and not has_frame):
            kept.append(chunk)
            has_frame = has_frame or kind in (b"ANMF", b"VP8 ", b"VP8L")
        elif kind in (b"EXIF", b"XMP "):
            metadata.setdefault(kind, chunk[8:])
        position = end
        if position >= len(data):
            break
    else:
        refuse_parts("WebP")
    content = b"WEBP" + b"".join(kept)
    size = _webp_size(kept[0]) if kept else None
    if size is not None and max(size) > _MAX_WEBP_SIDE:
        refuse(f"the WebP claims {size[0]} x {size[1]} pixels, and no side may have more than {_MAX_WEBP_SIDE}; scale it down first")
    clean = b"RIFF" + len(content).to_bytes(4, "little") + content
    orientation = orientation_of(metadata.get(b"EXIF"), metadata.get(b"XMP "))
    return Structure("WEBP", clean, size, orientation, size[0] * size[1] if size else 0)


def _webp_size(chunk: bytes) -> tuple[int, int] | None:
    """Width and height by the first chunk."""
    kind, body = chunk[:4], chunk[8:]
    if kind == b"VP8X" and len(body) >= 10:
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(body) >= 10:
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None


def read_bmp(data: bytes) -> Structure:
    """The structure of a BMP file.

    Raises:
        InvalidImage: more run-length encoded bytes than are decoded here.
    """
    header = int.from_bytes(data[14:18], "little")
    if header == 12:
        size, compression = struct.unpack_from("<HH", data.ljust(26, b"\0"), 18), 0
    else:
        width, height, _, _, compression = struct.unpack_from("<iiHHL", data.ljust(34, b"\0"), 18)
        size = (abs(width), abs(height))
    if compression in _RLE and len(data) > _MAX_RLE_BYTES:
        refuse(f"the BMP holds {len(data)} run-length encoded bytes, more than {_MAX_RLE_BYTES}; save it as PNG")
    return Structure("BMP", data, (size[0], size[1]), work=size[0] * size[1])


def read_avif(data: bytes) -> Structure:
    """An AVIF file as it is: its boxes are read by its decoder."""
    return Structure("AVIF", data, None)
