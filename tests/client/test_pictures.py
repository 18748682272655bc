from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from florence2.client import InvalidInput, pictures
from florence2.images import size_of
from florence2.images.modes import to_rgb

RED, BLUE = (220, 30, 20), (20, 40, 210)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    return image


def near(pixel: object, colour: tuple[int, ...], tolerance: int = 12) -> bool:
    assert isinstance(pixel, tuple)
    return all(abs(value - wanted) <= tolerance for value, wanted in zip(pixel, colour, strict=True))


MODES = ["1", "L", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBa", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_flattened_as_in_the_engine(mode: str, picture: Image.Image) -> None:
    image = in_mode(picture, mode)
    flat = pictures.flatten(image)
    assert flat.mode in ("L", "RGB")
    assert np.array_equal(np.asarray(flat.convert("RGB")), np.asarray(to_rgb(image)))
    assert opened(pictures.to_jpeg(image, 90)).size == image.size


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """The picture in a mode, half transparent where the mode can be."""
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    if mode in ("RGBA", "RGBa", "LA", "PA"):
        see_through = picture.convert("RGBA")
        see_through.putalpha(Image.new("L", picture.size, 100))
        direct = {"RGBA": ("RGBA",), "RGBa": ("RGBA", "RGBa"), "LA": ("LA",), "PA": ("PA",)}[mode]
        for step in direct:
            see_through = see_through.convert(step)
        return see_through
    return picture.convert(mode) if mode != "LAB" else Image.new("LAB", picture.size, (120, 130, 140))


def test_palette_with_a_transparent_colour_lies_on_white(picture: Image.Image) -> None:
    palette = picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    palette.info["transparency"] = palette.getpixel((0, 0))
    flat = pictures.flatten(palette)
    assert flat.getpixel((0, 0)) == (255, 255, 255)
    assert near(flat.getpixel((60, 20)), BLUE)


def test_arrays_are_bgr_unless_told(picture: Image.Image) -> None:
    rgb = np.asarray(picture)
    assert pictures.from_array(rgb[:, :, ::-1], "bgr").getpixel((0, 0)) == RED
    assert pictures.from_array(rgb, "rgb").getpixel((0, 0)) == RED
    assert pictures.from_array(rgb, "bgr").getpixel((0, 0)) == RED[::-1]
    see_through = np.dstack([rgb[:, :, ::-1], np.full(rgb.shape[:2], 7, np.uint8)])
    assert pictures.from_array(see_through, "bgr").getpixel((0, 0)) == (*RED, 7)
    assert pictures.from_array(rgb[:, :, 0], "bgr").mode == pictures.from_array(rgb[:, :, :1], "bgr").mode == "L"


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((4, 4, 3), 128, np.float32), "scale it to 0..1"),
        (np.zeros((4, 4), bool), "astype"),
        (np.zeros((3, 40, 50), np.uint8), "move the channels"),
        (np.zeros((2, 4, 4, 3), np.uint8), "list of arrays"),
        (np.zeros((4, 4, 2), np.uint8), r"\[4, 4, 2\]"),
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        (np.zeros(4, np.uint8), r"\[4\]"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        pictures.from_array(array, "bgr")
    assert caught.value.field == "image"


def test_quality_counts(picture: Image.Image) -> None:
    noise = Image.effect_noise((64, 64), 80)
    assert len(pictures.to_jpeg(noise, 30)) < len(pictures.to_jpeg(noise, 95))


def test_pictures_that_cannot_be_encoded() -> None:
    with pytest.raises(InvalidInput, match="0 x 5"):
        pictures.to_jpeg(Image.new("RGB", (0, 5)), 90)
    with pytest.raises(InvalidInput, match="can't be encoded"):
        pictures.to_jpeg(Image.new("L", (70_000, 1)), 90)
    with pytest.raises(InvalidInput, match="NaN"):
        pictures.to_jpeg(Image.fromarray(np.full((4, 4), np.nan, np.float32)), 90)


def test_shrinking_keeps_the_sides_ratio_and_small_pictures() -> None:
    data, size = pictures.shrink(Image.new("RGB", (400, 100)), max_side=200, max_bytes=None, quality=90)
    assert size == opened(data).size == (200, 50)
    assert pictures.shrink(Image.new("RGB", (40, 10)), max_side=200, max_bytes=None, quality=90)[1] == (40, 10)
    assert pictures.shrink(Image.new("RGB", (3000, 1)), max_side=200, max_bytes=None, quality=90)[1] == (200, 1)


def test_shrinking_to_bytes() -> None:
    noise = Image.effect_noise((400, 300), 90)
    data, size = pictures.shrink(noise, max_side=4000, max_bytes=20_000, quality=95)
    assert len(data) <= 20_000
    assert len(data) / 20_000 > 0.5
    assert abs(size[0] / size[1] - 4 / 3) < 0.02
    with pytest.raises(InvalidInput, match="max_image_bytes"):
        pictures.shrink(noise, max_side=4000, max_bytes=100, quality=95)


def test_size_by_the_header(jpeg_bytes: bytes) -> None:
    assert size_of(jpeg_bytes[:200] + b"damaged") in ((64, 48), None)
    assert size_of(jpeg_bytes) == (64, 48)
    assert size_of(b"no image") is None
