"""Pictures of any Pillow mode made into 8 bits, grey or RGB.

One rule for what the engine looks at and what the client sends: transparency lies on white, more than 8 bits are scaled down
(``docs/decisions/0004-pixels.md``). Knows nothing of files, sizes or models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from florence2.errors import InvalidImage

# Rows that are worked on at once where a picture in between would take several times the memory of the picture itself.
_BAND_PIXELS = 2**22


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode in RGB: transparency on white, more than 8 bits scaled down."""
    flat = flatten(image)
    return flat if flat.mode == "RGB" else flat.convert("RGB")


def flatten(image: Image.Image) -> Image.Image:
    """The picture in mode L where it is grey, otherwise in RGB.

    Raises:
        InvalidImage: grey values that are no numbers.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bits(np.asarray(image)))
    if "A" in image.getbands() or "a" in image.getbands() or image.info.get("transparency") is not None:
        return _on_white(image.convert("RGBA"))
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """A picture with transparency laid on white, some rows at a time."""
    flat = Image.new("RGB", image.size)
    num_rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, num_rows):
        band = image.crop((0, top, image.width, min(image.height, top + num_rows)))
        flat.paste(Image.alpha_composite(Image.new("RGBA", band.size, (255, 255, 255, 255)), band).convert("RGB"), (0, top))
    return flat


def _to_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey values of more than 8 bits on the scale 0 to 255.

    16-bit files by their full range. 32-bit integers and floats say nowhere what white is: values within 0..1 (floats), 0..255
    or 0..65535 are taken to be on that scale, all others are stretched from the smallest to the largest.
    """
    if not np.isfinite(values).all():
        raise InvalidImage("the image's grey values hold NaN or infinity; replace them before sending it", field="image")
    black, white = (0.0, 65535.0) if values.dtype.itemsize == 2 else _range_of(values)
    scaled = np.empty(values.shape, np.uint8)
    num_rows = max(1, _BAND_PIXELS // max(1, values.shape[1]))
    for top in range(0, values.shape[0], num_rows):
        rows = values[top : top + num_rows].astype(np.float64)
        scaled[top : top + num_rows] = np.rint((rows - black) * (255.0 / (white - black))).astype(np.uint8)
    return scaled


def _range_of(values: NDArray[Any]) -> tuple[float, float]:
    """Which values are black and white."""
    low, high = float(values.min()), float(values.max())
    for white in (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0):
        if low >= 0 and high <= white:
            return 0.0, white
    return low, max(high, low + 1.0)
