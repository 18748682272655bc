"""Preprocessing against the reference's Pillow image processor, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from florence2.engine.preprocess import preprocess
from florence2.images import read_image
from florence2.weights.defaults import ImageSettings

FLORENCE = ImageSettings()
OTHER = ImageSettings(width=160, height=96, mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 0.2), rescale_factor=1 / 128, resample=2)
PLAIN = ImageSettings(width=64, height=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), rescale_factor=0.00392156862745098)


def reference(image: Image.Image, settings: ImageSettings) -> np.ndarray:
    processor = CLIPImageProcessorPil(
        size={"height": settings.height, "width": settings.width},
        resample=settings.resample,
        do_center_crop=False,
        rescale_factor=settings.rescale_factor,
        image_mean=list(settings.mean),
        image_std=list(settings.std),
    )
    return processor(image, return_tensors="np")["pixel_values"][0]


def noise(width: int, height: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def assert_same_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == theirs.shape
    assert (ours.view(np.uint32) == np.ascontiguousarray(theirs).view(np.uint32)).all()


@pytest.mark.parametrize("settings", [FLORENCE, OTHER, PLAIN])
@pytest.mark.parametrize("size", [(768, 768), (640, 480), (31, 900), (1, 1), (1301, 77)])
def test_rgb_is_equal_to_the_last_bit(settings: ImageSettings, size: tuple[int, int]) -> None:
    image = Image.fromarray(noise(*size, 3))
    assert_same_bits(preprocess(read_image(image), settings).numpy(), reference(image, settings))


def test_every_value_of_every_channel_is_equal() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.dstack([ramp, ramp[::-1], ramp.T]))
    settings = ImageSettings(width=16, height=16)
    assert_same_bits(preprocess(read_image(image), settings).numpy(), reference(image, settings))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "YCbCr", "RGBX"])
def test_other_8_bit_modes_are_equal_too(mode: str) -> None:
    image = Image.fromarray(noise(90, 70, 4, seed=1), "RGBA") if mode in ("RGBA", "LA") else Image.fromarray(noise(90, 70, 3, seed=1))
    image = image.convert(mode)
    settings = ImageSettings(width=48, height=48)
    assert_same_bits(preprocess(read_image(image), settings).numpy(), reference(image, settings))
