"""The tensor that the model sees. Its values are held against the reference's in ``tests/parity/test_pixels.py``."""

from __future__ import annotations

import torch
from PIL import Image

from florence2.engine.preprocess import preprocess
from florence2.weights.defaults import ImageSettings


def test_preprocess_gives_float32_channels_first() -> None:
    tensor = preprocess(Image.new("RGB", (40, 20), (1, 2, 3)), ImageSettings(width=12, height=10))
    assert tensor.dtype == torch.float32
    assert tensor.shape == (3, 10, 12)
    assert tensor.is_contiguous()
