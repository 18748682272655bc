"""Arrays of pixels made into Pillow images.

In: an array as NumPy or OpenCV has it. Out: a Pillow image of its pixels, grey, RGB or RGBA. An array that can't be a picture is refused
with its type or shape and what to do.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from florence2.images.messages import invalid

Channels = Literal["rgb", "bgr"]


def from_array(array: NDArray[Any], channels: Channels = "rgb") -> Image.Image:
    """The picture in an array.

    Args:
        array: uint8 of shape ``[height, width]`` or ``[height, width, 1]`` (grey), ``[height, width, 3]``, or
            ``[height, width, 4]`` with alpha last.
        channels: the order of the first three channels.

    Raises:
        InvalidImage: any other array.
    """
    names = channels.upper()
    wanted = f"an image array must be uint8 of shape [height, width], [height, width, 3] ({names}) or [height, width, 4] ({names}A)"
    if array.dtype != np.uint8:
        hint = "; scale it to 0..255 and convert it with .astype(numpy.uint8)" if array.dtype.kind in "fiub" else ""
        raise invalid(f"{wanted}, got {_shown_type(array)}{hint}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise invalid(f"{wanted}, got {list(array.shape)}{_shape_hint(array.shape, channels)}")
    if not array.size:
        raise invalid(f"{wanted}, got an empty one: {list(array.shape)}")
    if array.ndim == 3 and channels == "bgr":
        array = array[:, :, [2, 1, 0, *range(3, array.shape[2])]]
    return Image.fromarray(np.ascontiguousarray(array))


def _shape_hint(shape: tuple[int, ...], channels: str) -> str:
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return "; move the channels to the end"
    # Of the readers of arrays the client alone takes a list, and BGR.
    return "; give several images as a list of arrays" if len(shape) == 4 and channels == "bgr" else ""


def _shown_type(array: NDArray[Any]) -> str:
    """An array's type of number; records have long ones."""
    text = str(array.dtype)
    return text if len(text) <= 60 else f"{text[:60]}…"
