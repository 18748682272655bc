"""The structure of PNG files, animated ones included.

Chunks are gone through by their lengths. Kept are those that make the first picture: header, palette, transparency, data. The
orientation is read from EXIF and XMP; texts, colour profiles and further frames are dropped unread. Source: PNG 1.2 and 3.0.
"""

from __future__ import annotations

import zlib

from florence2.image_files.exif import orientation_of
from florence2.image_files.structure import MAX_METADATA_BYTES, MAX_PARTS, Structure, refuse_parts

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_RAW_EXIF, _XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def read_png(data: bytes) -> Structure:
    """The structure of a PNG file.

    Raises:
        InvalidImage: more chunks than any valid picture has.
    """
    kept: list[bytes | memoryview] = []
    image_data: list[memoryview] = []  # where they are: images are large
    whole = memoryview(data)
    metadata: dict[bytes, bytes] = {}
    position = len(SIGNATURE)
    for _ in range(MAX_PARTS):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(data):  # cut off: for the decoder to say
            _flush(kept, image_data)
            kept.append(data[position:] if kind in _KEPT else b"")
            break
        if kind == b"IDAT":
            image_data.append(whole[position + 8 : end - 4])
        elif kind in _KEPT:
            _flush(kept, image_data)
            kept.append(data[position:end])
        elif kind == b"eXIf":
            metadata[kind] = data[position + 8 : end - 4]
        elif kind in _TEXTS and (name := data[position + 8 : position + 32].partition(b"\0")[0]) in (_RAW_EXIF, _XMP):
            metadata[name] = kind + data[position + 8 : end - 4]
        position = end
        if kind == b"IEND":
            break
    else:
        refuse_parts("PNG")
    return _structure(b"".join([SIGNATURE, *kept]), metadata)


def _structure(clean: bytes, metadata: dict[bytes, bytes]) -> Structure:
    """What the header says, with the orientation."""
    size = (int.from_bytes(clean[16:20], "big"), int.from_bytes(clean[20:24], "big")) if clean[12:16] == b"IHDR" else None
    exif = metadata.get(b"eXIf") or _raw_profile(_text(metadata.get(_RAW_EXIF, b"")))
    orientation = orientation_of(exif, _text(metadata.get(_XMP, b"")))
    if size is None or len(clean) < 33:
        return Structure("PNG", clean, size, orientation)
    num_bits = clean[24] * _CHANNELS.get(clean[25], 4)
    return Structure("PNG", clean, size, orientation, size[0] * size[1] * max(1, num_bits // 24), is_plain=True)


def _flush(kept: list[bytes | memoryview], image_data: list[memoryview]) -> None:
    """Put the data of adjoining chunks into one. Decoders take no note of their checksums."""
    if image_data:
        checksum = zlib.crc32(b"IDAT")
        for part in image_data:
            checksum = zlib.crc32(part, checksum)
        kept += [sum(map(len, image_data)).to_bytes(4, "big"), b"IDAT", *image_data, checksum.to_bytes(4, "big")]
        image_data.clear()


def _text(chunk: bytes) -> bytes:
    """The text in a text chunk, as much of it as may be; nothing where it can't be read."""
    kind, (_, _, value) = chunk[:4], chunk[4:].partition(b"\0")
    if kind == b"zTXt":
        return _inflated(value[1:])
    if kind == b"iTXt":
        is_compressed, (_, _, value) = value[:1] == b"\1", value[2:].partition(b"\0")
        value = value.partition(b"\0")[2]
        return _inflated(value) if is_compressed else value
    return value


def _inflated(value: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(value, MAX_METADATA_BYTES)
    except zlib.error:
        return b""


def _raw_profile(text: bytes) -> bytes | None:
    """An EXIF block written as ImageMagick does: a line break, name, length, and hexadecimal digits in lines."""
    digits = b"".join(text.split(b"\n")[3:])
    try:
        return bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii"))
    except ValueError:
        return None
