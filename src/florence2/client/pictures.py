"""Pictures made into JPEG files, and made smaller.

In: a Pillow image of any mode, an array, or the bytes of an image file. Out: the bytes of a JPEG in 8 bits, grey or RGB.
Transparency lies on white and deeper greys are scaled down, exactly as the engine does with the same pictures. Knows nothing of
requests.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import florence2.images as images
from florence2.client.errors import InvalidInput
from florence2.errors import Florence2Error
from florence2.images import arrays, modes
from florence2.images.kinds import TensorLike
from florence2.images.messages import shortened

Size = tuple[int, int]

# A picture that is still too many bytes is scaled again by what the bytes suggest; each step ends a little below its target.
_MAX_STEPS = 8
_STEP_MARGIN = 0.95
_MIN_SIDE = 16


def from_array(array: NDArray[Any], channels: arrays.Channels) -> Image.Image:
    """The picture in an array.

    Args:
        array: uint8, other integers from 0 to 255, or floats from 0 to 1; ``[height, width]`` or ``[height, width, 1]`` (grey), 3 channels,
            or 4 with alpha last.
        channels: the order of the first three.

    Raises:
        InvalidInput: any other array.
    """
    if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)
    with _as_invalid_input():
        return arrays.from_array(array, channels)


def from_tensor(tensor: TensorLike) -> Image.Image:
    """The picture in a tensor of PyTorch, in RGB.

    Raises:
        InvalidInput: it holds no picture.
    """
    with _as_invalid_input():
        return arrays.from_tensor(tensor)


def to_jpeg(image: Image.Image, quality: int) -> bytes:
    """A picture as the bytes of a JPEG file, without metadata.

    Raises:
        InvalidInput: it has no pixels, can't be decoded, or is too large for the format.
    """
    if not image.width or not image.height:
        raise _invalid(f"the picture has no pixels: its size is {image.width} x {image.height}")
    buffer = io.BytesIO()
    try:
        flatten(image).save(buffer, format="JPEG", quality=quality)
    except InvalidInput:
        raise
    except Exception as error:  # Pillow raises whatever a damaged picture led it to
        raise _invalid(f"the picture can't be encoded ({type(error).__name__}: {error})") from error
    return buffer.getvalue()


def flatten(image: Image.Image) -> Image.Image:
    """A picture of any mode in 8 bits, grey or RGB.

    Raises:
        InvalidInput: it can't be decoded, is closed, or its grey values are no numbers.
    """
    with _as_invalid_input():
        return modes.flatten(images.load(image))


def read(data: bytes, *, auto_orient: bool) -> Image.Image:
    """The picture in an image file in RGB, turned upright by its EXIF orientation.

    Raises:
        InvalidInput: the bytes hold no image in a format that is read.
    """
    with _as_invalid_input("the image can't be scaled down because it can't be read: "):
        return images.read_image(data, auto_orient=auto_orient)


def shrink(image: Image.Image, *, max_side: int, max_bytes: int | None, quality: int) -> tuple[bytes, Size]:
    """A picture as a JPEG within limits, and its new size.

    Args:
        image: any picture.
        max_side: the longest side in pixels; smaller pictures stay as large as they are.
        max_bytes: the longest file; None for no limit.
        quality: of the JPEG, 1 to 100.

    Raises:
        InvalidInput: not even a tiny picture keeps to ``max_bytes``.
    """
    image = flatten(image)
    ratio = min(1.0, max_side / max(image.size))
    for _ in range(_MAX_STEPS):
        size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
        data = to_jpeg(image if ratio == 1.0 else image.resize(size, Image.Resampling.LANCZOS), quality)
        if max_bytes is None or len(data) <= max_bytes:
            return data, size
        if max(size) <= _MIN_SIDE:
            break
        ratio *= (max_bytes / len(data)) ** 0.5 * _STEP_MARGIN
    raise _invalid(f"the picture of {image.width} x {image.height} pixels does not fit into {max_bytes} bytes; raise max_image_bytes")


@contextmanager
def _as_invalid_input(prefix: str = "") -> Iterator[None]:
    """Errors of reading a picture as the client's own."""
    try:
        yield
    except Florence2Error as error:
        raise _invalid(shortened(prefix + error.message)) from None


def _invalid(message: str) -> InvalidInput:
    return InvalidInput(message, field="image")
