"""Pictures made into what the model sees.

In: an RGB picture, as ``florence2.images`` reads it. Out: the tensor of the checkpoint's size, to the bit that of the reference's
processor. Knows nothing of files, prompts or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from florence2.images.resized import resize

if TYPE_CHECKING:
    from jaxtyping import Float
    from PIL import Image
    from torch import Tensor

    from florence2.weights.defaults import ImageSettings


def preprocess(image: Image.Image, settings: ImageSettings) -> Float[Tensor, "3 height width"]:
    """The model's input: squeezed to the checkpoint's size, scaled, and normalised by channel.

    Source: equal to the last bit to ``CLIPImageProcessorPil`` of transformers, the processor of Florence-2. Of a channel's 256 values
    each is computed once, with that processor's roundings, and then looked up.

    Args:
        image: any RGB picture.
        settings: the checkpoint's.
    """
    return normalise(resize(image, settings), settings)


def normalise(pixels: NDArray[np.uint8], settings: ImageSettings) -> Float[Tensor, "3 height width"]:
    """A picture of the checkpoint's size, scaled and normalised by channel."""
    table = _levels(settings.rescale_factor, settings.mean, settings.std)
    planes = np.empty((3, *pixels.shape[:2]), dtype=np.float32)
    for channel in range(3):
        np.take(table[channel], pixels[:, :, channel], out=planes[channel], mode="clip")
    return torch.from_numpy(planes)


class Normaliser:
    """Makes a model's input of pictures at its size, on its device; to the bit what ``normalise`` makes of each.

    On a GPU the values are looked up there: only a quarter of the bytes travels, and the engine's thread need not wait.

    Args:
        settings: the checkpoint's.
        device: the model's.
    """

    def __init__(self, settings: ImageSettings, device: torch.device) -> None:
        self._settings = settings
        self._device = device
        self._levels = torch.from_numpy(_levels(settings.rescale_factor, settings.mean, settings.std)).to(device)

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> Float[Tensor, "pictures 3 height width"]:
        """The input for these pictures, ``[height, width, 3]`` each."""
        if self._device.type == "cpu":
            return torch.stack([normalise(pixels, self._settings) for pixels in pictures])
        stacked = torch.from_numpy(np.stack(pictures))
        # From memory that a GPU can read by itself, while other work goes on.
        pixels = stacked.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else stacked.to(self._device)
        return looked_up(pixels, self._levels)


def looked_up(pixels: Tensor, levels: Tensor) -> Float[Tensor, "pictures 3 height width"]:
    """What each value of each channel becomes, on the device of both.

    Args:
        pixels: uint8, ``[pictures, height, width, 3]``.
        levels: ``[3, 256]``.
    """
    return torch.stack([of_channel[pixels[..., channel].int()] for channel, of_channel in enumerate(levels)], dim=1)


@lru_cache(maxsize=8)
def _levels(rescale_factor: float, mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """What each value of each channel becomes, ``[3, 256]``: scaled in float64, rounded to float32, normalised in float32."""
    scaled = (np.arange(256, dtype=np.float64) * rescale_factor).astype(np.float32)
    return (scaled - np.array(mean, dtype=np.float32)[:, None]) / np.array(std, dtype=np.float32)[:, None]
