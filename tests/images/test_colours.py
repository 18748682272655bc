"""Pictures for print, in Lab, and TIFF files of many bits in every layout."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence2.errors import InvalidImage
from florence2.images import read_image

CYAN, WHITE = (255, 0, 0, 0), (0, 0, 0, 0)


def print_profile(space: bytes = b"CMYK") -> bytes:
    """A profile for print in which full cyan is a dark red, and no ink is white; between them is what lies between."""
    table = bytearray()
    for ink in range(16):  # two points a channel, the last channel fastest; bit 3 is cyan
        table += bytes([90, 200, 170] if ink & 8 else [255, 128, 128])  # Lab, 8 bits
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 if index % 4 == 0 else 0 for index in range(9)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + bytes(table) + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    start = 128 + 4 + 2 * 12
    tags = struct.pack(">L", 2) + b"A2B0" + struct.pack(">LL", start, len(lut)) + b"wtpt" + struct.pack(">LL", start + len(lut), len(white))
    size = start + len(lut) + len(white)
    head = struct.pack(">L4sL4s4s4s", size, b"lcms", 0x02400000, b"prtr", space, b"Lab ").ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + tags + lut + white


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colour(data: bytes) -> tuple[int, ...]:
    pixel = read_image(data).getpixel((3, 3))
    assert isinstance(pixel, tuple)
    return pixel


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})])
def test_pictures_for_print_are_seen_by_their_profile(kind: str, options: dict[str, Any]) -> None:
    cyan, white = (Image.new("CMYK", (16, 16), ink) for ink in (CYAN, WHITE))
    red, green, blue = colour(saved(cyan, kind, icc_profile=print_profile(), **options))
    assert red > 80
    assert max(green, blue) < 40
    assert min(colour(saved(white, kind, icc_profile=print_profile(), **options))) > 245
    red, green, blue = colour(saved(cyan, kind, **options))  # without a profile as Pillow has it
    assert (red < 10, green > 240, blue > 240) == (True, True, True)


@pytest.mark.parametrize("profile", [b"no profile", print_profile(b"RGB "), print_profile()[:200], print_profile()[:1400] + bytes(99)])
def test_a_profile_that_is_none_is_passed_over(profile: bytes) -> None:
    red, green, blue = colour(saved(Image.new("CMYK", (16, 16), CYAN), "JPEG", icc_profile=profile, quality=95))
    assert (red < 10, green > 240, blue > 240) == (True, True, True)


def test_profiles_of_rgb_decide_nothing() -> None:
    picture = Image.new("RGB", (16, 16), (10, 200, 30))
    assert colour(saved(picture, "PNG", icc_profile=print_profile())) == (10, 200, 30)
    assert colour(saved(picture, "TIFF", icc_profile=print_profile())) == (10, 200, 30)


def test_lab_is_read() -> None:
    picture = Image.frombytes("LAB", (16, 16), bytes([135, 80, 67]) * 256)
    red, green, blue = colour(saved(picture, "TIFF"))
    assert red > 200
    assert max(green, blue) < 60


# TIFF files as instruments and maps have them, written by hand: Pillow writes few of these


def tiff(values: np.ndarray[Any, Any], *, planar: bool = False) -> bytes:
    """An uncompressed TIFF of one strip a plane."""
    height, width, channels = values.shape
    planes = np.moveaxis(values, -1, 0) if planar else values[np.newaxis]
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    content, count = planes.astype(values.dtype.newbyteorder("<")).tobytes(), len(planes)
    extra = 8 + len(content)
    shorts = struct.pack(f"<{2 * channels}H", *[values.dtype.itemsize * 8] * channels, *[kind] * channels)
    strips = struct.pack(f"<{2 * count}L", *(8 + index * len(content) // count for index in range(count)), *[len(content) // count] * count)

    def entry(tag: int, form: int, num: int, value: int) -> bytes:
        return struct.pack("<HHLL", tag, form, num, value)

    bits, formats = (extra, extra + 2 * channels) if channels > 2 else (values.dtype.itemsize * 8, kind)
    offsets, lengths = (extra + len(shorts), extra + len(shorts) + 4 * count) if count > 1 else (8, len(content))
    entries = [
        *(entry(256, 4, 1, width), entry(257, 4, 1, height), entry(258, 3, channels, bits), entry(259, 3, 1, 1)),
        *(entry(262, 3, 1, 2 if channels > 2 else 1), entry(273, 4, count, offsets), entry(277, 3, 1, channels), entry(278, 4, 1, height)),
        *(entry(279, 4, count, lengths), entry(284, 3, 1, 2 if planar else 1), entry(339, 3, channels, formats)),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<L", extra + len(shorts) + len(strips)) + content + shorts + strips + directory


SLOPE = np.linspace(0, 1, 16 * 16 * 3).reshape(16, 16, 3)


def off_by(data: bytes, wanted: np.ndarray[Any, Any]) -> float:
    """How far the picture is from what it should be, of 255."""
    return float(np.abs(np.asarray(read_image(data)).astype(float) - 255 * wanted).max())


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_colours_of_8_and_16_bits_pixel_by_pixel_and_plane_by_plane(kind: str, planar: bool) -> None:
    assert off_by(tiff((SLOPE * np.iinfo(kind).max).astype(kind), planar=planar), SLOPE) < 1.01


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "float32"])
def test_grey_of_any_kind(kind: str) -> None:
    grey = SLOPE[..., :1]
    values = grey.astype(kind) if kind == "float32" else (grey * np.iinfo(kind).max).astype(kind)
    wanted = np.broadcast_to(grey if kind != "uint32" else grey / grey.max(), SLOPE.shape)
    assert off_by(tiff(values), wanted) < 1.01


@pytest.mark.parametrize("kind", ["int16", "int32", "uint32", "float32", "float64"])
def test_what_is_not_read_says_what_would(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidImage, match="which is not read here; convert it to 8 bits a channel, grey or RGB"):
        read_image(tiff((SLOPE * 100).astype(kind)))
