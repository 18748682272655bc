"""Pictures made into JPEG files, and made smaller.

In: a Pillow image of any mode, an array, or the bytes of an image file. Out: the bytes of a JPEG in 8 bits, grey or RGB.
Transparency lies on white and deeper greys are scaled down, exactly as the engine does with the same pictures. Knows nothing of
requests.
"""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from florence2 import images, modes
from florence2.client.errors import InvalidInput
from florence2.errors import Florence2Error

Size = tuple[int, int]

# A picture that is still too many bytes is scaled again by what the bytes suggest; each step ends a little below its target.
_MAX_STEPS = 8
_STEP_MARGIN = 0.95
_MIN_SIDE = 16


def from_array(array: NDArray[Any], channels: Literal["bgr", "rgb"]) -> Image.Image:
    """The picture in an array.

    Args:
        array: uint8, or other integers from 0 to 255; ``[height, width]`` or ``[height, width, 1]`` (grey), 3 channels,
            or 4 with alpha last.
        channels: the order of the first three.

    Raises:
        InvalidInput: any other array.
    """
    wanted = f"an image array must be uint8 of shape [height, width], [height, width, 3] ({channels.upper()}) or [height, width, 4]"
    if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)
    if array.dtype != np.uint8:
        hint = "; scale it to 0..255 and convert it with .astype(numpy.uint8)" if array.dtype.kind in "fiub" else ""
        raise _invalid(f"{wanted}, got {array.dtype}{hint}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or not array.size:
        raise _invalid(f"{wanted}, got {list(array.shape)}{_shape_hint(array.shape)}")
    if array.ndim == 3 and channels == "bgr":
        array = array[:, :, [2, 1, 0, *range(3, array.shape[2])]]
    return Image.fromarray(np.ascontiguousarray(array))


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
    try:
        return modes.flatten(images.load(image))
    except Florence2Error as error:
        raise _invalid(error.message) from None


def read(data: bytes, *, auto_orient: bool) -> Image.Image:
    """The picture in an image file in RGB, turned upright by its EXIF orientation.

    Raises:
        InvalidInput: the bytes hold no image in a format that is read.
    """
    try:
        return images.read_image(data, auto_orient=auto_orient)
    except Florence2Error as error:
        raise _invalid(images.shortened(f"the image can't be scaled down because it can't be read: {error.message}")) from None


def size_of(data: bytes) -> Size | None:
    """Width and height by the file's header, as stored; None where its format is not read: whoever decodes it will say so."""
    return images.size_of(data)


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


def _shape_hint(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return "; move the channels to the end"
    return "; give several images as a list of arrays" if len(shape) == 4 else ""


def _invalid(message: str) -> InvalidInput:
    return InvalidInput(message, field="image")
