"""Colours of files that Pillow's own conversion gets wrong: pictures for print and in Lab, and TIFF files of many bits.

In: an opened file. Out: the same picture in sRGB where it has a profile for print or is in Lab, and its true numbers. RGB and grey are left
as they are, whatever their profile says: that is what the model's reference sees. Knows nothing of names and bounds.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin

_READER = threading.Lock()
_PLANES, _BITS, _SAMPLE_FORMAT = 284, 258, 339


def to_srgb(image: Image.Image) -> Image.Image:
    """A loaded CMYK picture in RGB by its profile, one in Lab by the definition of Lab; any other as it is."""
    source = _profile(image)
    if source is None:
        return image
    try:
        converted = ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):  # a damaged profile is no reason to refuse a valid picture
        return image
    return converted or image


def _profile(image: Image.Image) -> Any:
    """What the picture's numbers mean; None where Pillow's own conversion holds."""
    if image.mode == "LAB":
        return ImageCms.createProfile("LAB")
    if image.mode != "CMYK" or not image.info.get("icc_profile"):
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    named: Any = profile.profile
    return profile if named.xcolor_space.strip() == "CMYK" else None


def unsigned(image: Image.Image) -> Image.Image:
    """A loaded TIFF picture of unsigned 32-bit numbers with floats in their place; any other as it is.

    Pillow takes the larger half of these numbers for negative ones.
    """
    if image.mode != "I" or not isinstance(image, TiffImagePlugin.TiffImageFile):
        return image
    if image.tag_v2.get(_BITS, (1,))[0] != 32 or image.tag_v2.get(_SAMPLE_FORMAT, (1,))[0] != 1:
        return image
    numbers = np.asarray(image)
    return image if numbers.min() >= 0 else Image.fromarray(numbers.view(np.uint32).astype(np.float32))


def is_in_planes_of_16_bits(image: Image.Image) -> bool:
    """Whether an opened file is a TIFF of 16 bits a channel, one channel behind the other and not compressed.

    Pillow's own reader takes its numbers for bytes; by libtiff they are read rightly.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    bits = image.tag_v2.get(_BITS, (1,))
    return image.tag_v2.get(_PLANES) == 2 and len(bits) > 1 and bits[0] == 16


@contextmanager
def decoded_by_libtiff() -> Iterator[None]:
    """Have TIFF files that are opened inside of the block decoded by libtiff."""
    with _READER:
        before, TiffImagePlugin.READ_LIBTIFF = TiffImagePlugin.READ_LIBTIFF, True
        try:
            yield
        finally:
            TiffImagePlugin.READ_LIBTIFF = before
