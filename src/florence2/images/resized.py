"""Pictures squeezed to a model's size, before they become tensors: what travels to an engine in another process.

In: an RGB picture and a checkpoint's settings. Out: its pixels at the model's size, and those of its tiles. Knows nothing of tensors,
files or prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from florence2.weights.defaults import ImageSettings

PixelBox = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class ResizedPicture:
    """A picture as an engine needs it, and no more of it.

    Attributes:
        pixels: the picture at the model's size, uint8, ``[height, width, 3]``.
        size: width and height of the picture itself, after its EXIF rotation.
        parts: its tiles, by their boxes in the picture; empty where it is asked about as a whole.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    parts: Mapping[PixelBox, ResizedPicture] = field(default_factory=dict)

    def crop(self, box: PixelBox) -> ResizedPicture:
        """One of the tiles; ``KeyError`` for any other box."""
        return self.parts[box]


def resized(picture: Image.Image, settings: ImageSettings, boxes: Sequence[PixelBox] = ()) -> ResizedPicture:
    """The picture at the model's size, and so its tiles.

    Args:
        picture: in RGB.
        settings: the checkpoint's.
        boxes: the tiles, in pixels of the picture.
    """
    parts = {box: resized(picture.crop(box), settings) for box in boxes}
    return ResizedPicture(resize(picture, settings), picture.size, parts)


def resize(picture: Image.Image, settings: ImageSettings) -> NDArray[np.uint8]:
    """The picture squeezed to the checkpoint's size, ``[height, width, 3]``."""
    return np.asarray(picture.resize((settings.width, settings.height), resample=Image.Resampling(settings.resample)))
