"""Arrays and tensors of pixels made into Pillow images.

In: an array as NumPy or OpenCV has it, or a tensor as torchvision gives it. Out: a Pillow image of its pixels, grey, RGB or RGBA. An array
that can't be a picture is refused with its type or shape and what to do. Imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from florence2.images.messages import invalid

if TYPE_CHECKING:
    from florence2.images.kinds import TensorLike

Channels = Literal["rgb", "bgr"]


def from_array(array: NDArray[Any], channels: Channels = "rgb") -> Image.Image:
    """The picture in an array.

    Args:
        array: uint8, or floats from 0 to 1, of shape ``[height, width]`` or ``[height, width, 1]`` (grey), ``[height, width, 3]``,
            or ``[height, width, 4]`` with alpha last.
        channels: the order of the first three channels.

    Raises:
        InvalidImage: any other array.
    """
    names = channels.upper()
    wanted = f"an image array must be uint8 of shape [height, width], [height, width, 3] ({names}) or [height, width, 4] ({names}A)"
    if array.dtype.kind == "f" and array.size:
        array = _scaled(array, wanted)
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


def from_tensor(tensor: TensorLike) -> Image.Image:
    """The picture in a tensor of PyTorch.

    Args:
        tensor: uint8, or floats from 0 to 1, on any device, as torchvision has pictures: ``[channels, height, width]`` with 1, 3 (RGB) or
            4 channels. Where the first of three dimensions is none of these, the last has the channels.

    Raises:
        InvalidImage: any other tensor.
    """
    values = tensor.detach()
    try:
        array = np.asarray((values.float() if values.is_floating_point() else values).cpu().numpy())
    except Exception as error:  # sparse tensors, kinds that NumPy does not have
        raise invalid(f"the tensor can't be read as pixels: {str(error)[:200]}") from error
    if array.ndim == 4:
        raise invalid(f"a tensor must be one picture, got a batch of {len(array)}: {list(array.shape)}; give each, such as tensor[0]")
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    return from_array(array)


def _scaled(array: NDArray[Any], wanted: str) -> NDArray[np.uint8]:
    """Floats from 0 to 1 as bytes.

    Raises:
        InvalidImage: there are others.
    """
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):
        what = "as it was before mean and std were taken" if low < 0 else "as uint8"
        hint = "NaN: replace it" if np.isnan(low) else f"values from {low:g} to {high:g}; scale it to 0..1, or give it {what}"
        raise invalid(f"{wanted}, or floats from 0 to 1, got {_shown_type(array)} with {hint}")
    return np.rint(array * 255.0).astype(np.uint8)


def _shape_hint(shape: tuple[int, ...], channels: str) -> str:
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return "; move the channels to the end: array.transpose(1, 2, 0)"
    # Of the readers of arrays the client alone takes a list, and BGR.
    return "; give several images as a list of arrays" if len(shape) == 4 and channels == "bgr" else ""


def _shown_type(array: NDArray[Any]) -> str:
    """An array's type of number; records have long ones."""
    text = str(array.dtype)
    return text if len(text) <= 60 else f"{text[:60]}…"
