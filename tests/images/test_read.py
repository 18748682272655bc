"""Every kind of image file and array has one defined outcome; what is no image is refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from florence2.errors import InvalidImage
from florence2.images import UPRIGHT, read_image


def encoded(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def scene(width: int = 8, height: int = 6) -> Image.Image:
    """A picture whose every pixel is its own."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.dstack([columns * 20, rows * 30, columns + rows]).astype(np.uint8))


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "bytearray", "memoryview", "pillow", "array"])
def test_every_way_to_give_an_image(kind: str, tmp_path: Path) -> None:
    image, path = scene(), tmp_path / "scene.png"
    data = encoded(image)
    path.write_bytes(data)
    given = {
        "path": path,
        "str": str(path),
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "pillow": image,
        "array": np.asarray(image),
    }[kind]
    assert (pixels(read_image(given)) == np.asarray(image)).all()


def test_the_callers_picture_is_left_alone() -> None:
    image = scene()
    read_image(image).paste((0, 0, 0), (0, 0, 8, 6))
    assert (np.asarray(image) == np.asarray(scene())).all()


def test_grey_and_one_bit() -> None:
    grey = np.array([[0, 100], [200, 255]], dtype=np.uint8)
    for given in (grey, grey[:, :, None], encoded(Image.fromarray(grey))):
        assert (pixels(read_image(given)) == grey[:, :, None]).all()
    one_bit = Image.fromarray(grey > 150)
    assert one_bit.mode == "1"
    assert (pixels(read_image(encoded(one_bit)))[:, :, 0] == [[0, 0], [255, 255]]).all()


def test_transparency_is_laid_on_white() -> None:
    picture = np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 128], [10, 200, 30, 255]]], dtype=np.uint8)
    on_white = [[255, 255, 255], [0, 0, 0], [127, 127, 127], [10, 200, 30]]
    for given in (picture, encoded(Image.fromarray(picture)), Image.fromarray(picture)):
        assert (pixels(read_image(given)) == [on_white]).all()
    grey_alpha = Image.fromarray(np.array([[[0, 0], [0, 255]]], dtype=np.uint8), "LA")
    assert (pixels(read_image(encoded(grey_alpha))) == [[[255] * 3, [0] * 3]]).all()


def test_palette_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert (pixels(read_image(encoded(image))) == [[[255, 0, 0], [0, 0, 255]]]).all()
    assert (pixels(read_image(encoded(image, transparency=1))) == [[[255, 0, 0], [255, 255, 255]]]).all()


def test_a_colour_that_stands_for_transparency() -> None:
    image = Image.new("RGB", (2, 1), (0, 255, 0))
    image.putpixel((1, 0), (1, 2, 3))
    assert (pixels(read_image(encoded(image, transparency=(0, 255, 0)))) == [[[255, 255, 255], [1, 2, 3]]]).all()


def test_cmyk() -> None:
    image = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert np.abs(pixels(read_image(encoded(image, "JPEG", quality=100))).astype(int) - [255, 0, 0]).max() <= 3
    assert (pixels(read_image(image)) == [255, 0, 0]).all()


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(file_format: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    assert (pixels(read_image(encoded(Image.fromarray(values), file_format)))[0, :, 0] == [0, 1, 128, 255]).all()


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_16_bit_modes(mode: str) -> None:
    assert (pixels(read_image(Image.new(mode, (2, 2), 65535))) == 255).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 1.0, 1.0], [0, 255, 255]),
        ([0.0, 100.4, 255.0], [0, 100, 255]),
        ([0.0, 32896.0, 65535.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([-5.0, -5.0, -5.0], [0, 0, 0]),
        ([0.0, 5e5, 1e6], [0, 128, 255]),
    ],
)
def test_float_tiff_by_the_range_of_its_values(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert (pixels(read_image(encoded(image, "TIFF")))[0, :, 0] == expected).all()


@pytest.mark.parametrize(
    ("values", "expected"), [([0, 1, 255], [0, 1, 255]), ([0, 257, 65535], [0, 1, 255]), ([-10, 0, 10], [0, 128, 255])]
)
def test_32_bit_integer_tiff(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.int32))
    assert (pixels(read_image(encoded(image, "TIFF")))[0, :, 0] == expected).all()


def test_animated_gif_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (3, 3), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (pixels(read_image(data)) == [255, 0, 0]).all()


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_are_turned_upright_by_exif(orientation: int, file_format: str) -> None:
    upright = Image.new("RGB", (32, 16), (255, 255, 255))
    upright.paste((255, 0, 0), (0, 0, 16, 8))
    upright.paste((0, 0, 255), (16, 8, 32, 16))
    inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stored = upright.transpose(inverse.get(orientation, UPRIGHT[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, file_format, exif=exif, **({"quality": 100} if file_format in ("JPEG", "WEBP") else {}))

    seen = read_image(data)
    assert seen.size == (32, 16)
    assert np.abs(pixels(seen)[[2, 13], [2, 29]].astype(int) - [[255, 0, 0], [0, 0, 255]]).max() < 20
    as_stored = read_image(data, auto_orient=False)
    assert as_stored.size == stored.size
    assert np.abs(pixels(as_stored).astype(int) - pixels(stored)).mean() < 6
    if file_format != "TIFF":  # which Pillow turns by itself while it decodes
        # A Pillow image is taken as its caller sees it.
        assert read_image(Image.open(io.BytesIO(data))).size == stored.size


def test_damaged_exif_is_passed_over() -> None:
    data = encoded(scene(), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\xff\xff garbage")
    assert read_image(data).size == (8, 6)


def refused(image: object) -> str:
    with pytest.raises(InvalidImage) as caught:
        read_image(image)  # type: ignore[arg-type]
    assert caught.value.field == "image"
    return caught.value.message


def test_what_holds_no_image_is_refused_by_name(tmp_path: Path) -> None:
    text, empty = tmp_path / "notes.jpg", tmp_path / "empty.png"
    text.write_text("<html>404</html>")
    empty.touch()
    assert "there is no file" in refused(tmp_path / "missing.png")
    assert "missing.png" in refused(str(tmp_path / "missing.png"))
    assert "is a folder" in refused(tmp_path)
    assert "notes.jpg" in refused(text)
    assert "<html>404" in refused(text)
    assert "empty" in refused(empty)
    assert "empty" in refused(b"")
    assert "not a URL" in refused("https://example.com/a.png")
    assert "null" in refused("a\0b")
    assert "got None" in refused(None)
    assert "got int" in refused(3)
    assert "read()" in refused(io.BytesIO(encoded(scene())))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_files_are_refused(file_format: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(image, file_format)
    assert "damaged or incomplete" in refused(data[: len(data) // 2]) or file_format == "WEBP"


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    header = struct.pack(">II5B", 60000, 60000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    assert "more pixels" in refused(bomb)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((4, 4, 3), 1.5, np.float32), "got float32 with values from 1.5 to 1.5; scale it"),
        (np.linspace(-2, 2, 48).reshape(4, 4, 3), "before mean and std were taken"),
        (np.full((4, 4, 3), np.nan), "got float64 with NaN"),
        (np.zeros((4, 4), np.uint16), "got uint16; scale it"),
        (np.zeros((4, 4), bool), "got bool"),
        (np.array(["a"]), "got <U1"),
        (np.zeros((3, 4, 5), np.uint8), "got [3, 4, 5]; move the channels"),
        (np.zeros((4, 4, 2), np.uint8), "got [4, 4, 2]"),
        (np.zeros((1, 4, 4, 3), np.uint8), "got [1, 4, 4, 3]"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros((4,), np.uint8), "got [4]"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array: np.ndarray, said: str) -> None:
    assert said in refused(array)


def test_float_pictures_with_nan_are_refused() -> None:
    assert "NaN" in refused(encoded(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"))


def test_a_picture_without_pixels_is_refused() -> None:
    assert "no pixels" in refused(Image.new("RGB", (0, 5)))


def test_strided_and_reversed_arrays() -> None:
    array = np.asarray(scene())
    assert (pixels(read_image(array[::-1, ::2])) == array[::-1, ::2]).all()


# Arrays of floats, and tensors


def test_floats_from_0_to_1_are_a_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for kind in (np.float16, np.float32, np.float64):
        assert np.array_equal(np.asarray(read_image((pixels / 255).astype(kind))), pixels)
    assert read_image(np.zeros((4, 4))).getpixel((0, 0)) == (0, 0, 0)


def test_tensors_are_read_as_torchvision_has_them() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    given = torch.from_numpy(pixels)
    planes = given.permute(2, 0, 1)
    for tensor in (given, planes, planes.float() / 255, (planes.double() / 255).requires_grad_(), torch.nn.Parameter(planes / 255)):
        assert np.array_equal(np.asarray(read_image(tensor)), pixels)
    assert np.abs(np.asarray(read_image(planes.to(torch.bfloat16) / 255)).astype(int) - pixels).max() <= 1
    assert read_image(planes[:1]).size == read_image(planes[0]).size == (7, 5)
    assert "a batch of 2" in refused(torch.zeros(2, 3, 4, 4))
    assert "before mean and std" in refused(planes.float() / 255 - 1)
    assert "got int64; scale it" in refused(planes.long())
    assert "can't be read as pixels" in refused(torch.ones(3, 4, 4).to_sparse())
