"""Files that are made to cost, to mislead or to lie about their size, built from what their formats say."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from functools import cache
from typing import Any

from PIL import Image, PngImagePlugin

from tests.server.fakes import image_bytes

MB = 10**6
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@cache
def zeros(num_bytes: int) -> bytes:
    """So many zeros, compressed: a thousandth of them."""
    compressor = zlib.compressobj(1)
    return b"".join([*(compressor.compress(bytes(MB)) for _ in range(num_bytes // MB)), compressor.flush()])


def png(width: int = 64, height: int = 48, *, data: bytes | None = None, before: bytes = b"", depth: int = 8, colours: int = 2) -> bytes:
    """A PNG with a header of one's own, some chunks behind it, and any compressed pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    pixels = zlib.compress(bytes((3 * 64 + 1) * 48)) if data is None else data
    return SIGNATURE + chunk(b"IHDR", header) + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def patched(data: bytes, position: int, form: str, *numbers: int) -> bytes:
    """The file with numbers written over what stands at a position."""
    written = struct.pack(form, *numbers)
    return data[:position] + written + data[position + len(written) :]


def jpeg_of(width: int, height: int, **options: Any) -> bytes:
    """A JPEG whose frame claims another size."""
    data = image_bytes(kind="JPEG", **options)
    frame = next(place for marker in (b"\xff\xc0", b"\xff\xc2") if (place := data.find(marker)) > 0)
    return patched(data, frame + 5, ">HH", height, width)


def gif_of(width: int, height: int) -> bytes:
    """A GIF whose screen and frame claim another size."""
    data = image_bytes(kind="GIF")
    data = patched(data, 6, "<HH", width, height)
    return patched(data, data.index(b",\0\0\0\0") + 5, "<HH", width, height)


def webp_of(width: int, height: int) -> bytes:
    """A WebP whose canvas claims another size, one pixel less than written."""
    data = animation("WEBP", 2)
    return data[:24] + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + data[30:]


def bmp_of(width: int, height: int) -> bytes:
    """A BMP that claims another size."""
    return patched(image_bytes(kind="BMP"), 18, "<ii", width, height)


def tiff_of(width: int, height: int) -> bytes:
    """A TIFF that claims another size."""
    data = image_bytes(kind="TIFF")
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag = struct.unpack_from("<H", data, entry)[0]
        if tag in (256, 257):
            data = patched(data, entry, "<HHII", tag, 4, 1, width if tag == 256 else height)
    return data


def boxed_of(kind: str, width: int, height: int) -> bytes:
    """An AVIF or HEIC picture that claims another size."""
    data = boxed(kind)
    return patched(data, data.index(b"ispe") + 8, ">II", width, height)


@cache
def boxed(kind: str) -> bytes:
    """A small AVIF or HEIC picture."""
    if kind == "AVIF":
        return image_bytes(kind="AVIF")
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), "red")).save(buffer)
    return buffer.getvalue()


@cache
def animation(kind: str, num_frames: int, size: tuple[int, int] = (16, 16)) -> bytes:
    """A file of so many frames, one like another but not the same."""
    frames = [Image.new("RGB", size, (255 * (number % 2), 0, 0)) for number in range(num_frames)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=10)
    return buffer.getvalue()


def gif_of_frames(num_frames: int) -> bytes:
    """A GIF of so many frames, the second one again and again."""
    data = animation("GIF", 2)
    start = data.rindex(b"\x21\xf9")
    return data[:start] + data[start:-1] * (num_frames - 1) + b";"


def png_with_texts(num_bytes: int) -> bytes:
    """A PNG whose texts and profile grow to so many bytes each."""
    packed = zeros(num_bytes)
    texts = chunk(b"zTXt", b"Comment\0\0" + packed) + chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed)
    raw = chunk(b"zTXt", b"Raw profile type exif\0\0" + packed)
    return png(before=texts + raw + chunk(b"iCCP", b"x\0\0" + packed))


def jpeg_with_exif(block: bytes) -> bytes:
    """A JPEG with an EXIF block of any bytes."""
    return image_bytes(kind="JPEG", exif=b"Exif\0\0" + block)


def exif_in_a_circle() -> bytes:
    """An EXIF block whose directories lead to each other, with counts of four billion."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<HHII", 0x010E, 2, 0xFFFFFFFF, 8)
    return b"II*\0" + struct.pack("<IH", 8, 2) + entry + struct.pack("<I", 8)


def tiff_in_a_circle() -> bytes:
    """A TIFF whose pages lead to each other."""
    data = image_bytes(kind="TIFF")
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    return patched(data, start + 2 + 12 * count, "<I", start)


def exploit(path: str) -> bytes:
    """A pickle that writes a file when it is read."""

    class Writes:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (path, "w")

    return pickle.dumps(Writes())


def png_text_of(text: str) -> bytes:
    """A PNG with a plain text of any length."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", text)
    return image_bytes(kind="PNG", pnginfo=info)
