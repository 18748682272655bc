"""Images as the caller has them, made into what the model sees.

``read_image`` gives an RGB picture of a path, of bytes, of a Pillow image or of an array; ``preprocess`` gives the tensor. Every
kind of file has one defined outcome, written down in ``docs/decisions/0004-pixels.md``; what holds no image is refused with
what came and what to do. Knows nothing of prompts or models.
"""

from __future__ import annotations

import io
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from florence2.errors import InvalidImage
from florence2.modes import FORMATS, flatten

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from florence2.weights.defaults import ImageSettings

ImageInput = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]

ORIENTATION_TAG = 0x0112
# The EXIF value of a stored picture → what turns it upright. 1 is upright already. Source: Exif 2.32, section 4.6.4.A.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(image: ImageInput, *, auto_orient: bool = True) -> Image.Image:
    """The picture in RGB, 8 bits a channel.

    Args:
        image: a path, the bytes of an image file, a Pillow image, or an array of uint8, ``[height, width]`` (grey),
            ``[height, width, 3]`` (RGB) or ``[height, width, 4]`` (RGBA).
        auto_orient: turn files and bytes upright by their EXIF orientation. Pillow images and arrays are taken as they are.

    Raises:
        InvalidImage: what came holds no readable image.
    """
    if isinstance(image, np.ndarray):
        return to_rgb(_from_array(image))
    if isinstance(image, Image.Image):
        return _decode(image, "the Pillow image", auto_orient=False)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(image), auto_orient)
    if isinstance(image, (str, os.PathLike)):
        return _from_path(Path(image), auto_orient)
    raise _invalid(f"an image must be a path, bytes, a Pillow image or a numpy array, got {_kind(image)}")


def preprocess(image: Image.Image, settings: ImageSettings) -> Float[Tensor, "3 height width"]:
    """The model's input: squeezed to the checkpoint's size, scaled, and normalised by channel.

    Source: equal to the last bit to ``CLIPImageProcessorPil`` of transformers, the processor of Florence-2. Of a channel's 256 values
    each is computed once, with that processor's roundings, and then looked up.

    Args:
        image: any RGB picture.
        settings: the checkpoint's.
    """
    return normalise(resize(image, settings), settings)


def resize(image: Image.Image, settings: ImageSettings) -> NDArray[np.uint8]:
    """The picture squeezed to the checkpoint's size, ``[height, width, 3]``."""
    return np.asarray(image.resize((settings.width, settings.height), resample=Image.Resampling(settings.resample)))


def normalise(pixels: NDArray[np.uint8], settings: ImageSettings) -> Float[Tensor, "3 height width"]:
    """A picture of the checkpoint's size, scaled and normalised by channel."""
    table = _levels(settings.rescale_factor, settings.mean, settings.std)
    planes = np.empty((3, *pixels.shape[:2]), dtype=np.float32)
    for channel in range(3):
        np.take(table[channel], pixels[:, :, channel], out=planes[channel], mode="clip")
    return torch.from_numpy(planes)


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode in RGB: transparency on white, more than 8 bits scaled down."""
    flat = flatten(image)
    return flat if flat.mode == "RGB" else flat.convert("RGB")


@lru_cache(maxsize=8)
def _levels(rescale_factor: float, mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """What each value of each channel becomes, ``[3, 256]``: scaled in float64, rounded to float32, normalised in float32."""
    scaled = (np.arange(256, dtype=np.float64) * rescale_factor).astype(np.float32)
    return (scaled - np.array(mean, dtype=np.float32)[:, None]) / np.array(std, dtype=np.float32)[:, None]


def _from_array(array: NDArray[Any]) -> Image.Image:
    """A picture of an array, which has to look like one."""
    wanted = "an image array must be uint8 of shape [height, width], [height, width, 3] (RGB) or [height, width, 4] (RGBA)"
    if array.dtype != np.uint8:
        hint = "; scale it to 0..255 and convert it with .astype(numpy.uint8)" if array.dtype.kind in "fiu" else ""
        raise _invalid(f"{wanted}, got {array.dtype}{hint}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        hint = "; move the channels to the end" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise _invalid(f"{wanted}, got {list(array.shape)}{hint}")
    if not array.size:
        raise _invalid(f"{wanted}, got an empty one: {list(array.shape)}")
    return Image.fromarray(array)


def _from_path(path: Path, auto_orient: bool) -> Image.Image:
    """The picture in a file."""
    if str(path).startswith(("http:/", "https:/")):
        raise _invalid(f"an image must be a path, not a URL: download {str(path)!r} first and give the file or its bytes")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise _invalid(f"there is no file {str(path)!r}; the current folder is {str(Path.cwd())!r}") from None
    except IsADirectoryError:
        raise _invalid(f"{str(path)!r} is a folder; give the path of an image file") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise _invalid(f"the file {str(path)!r} can't be read: {error}") from error
    return _from_bytes(data, auto_orient, repr(str(path)))


def _from_bytes(data: bytes, auto_orient: bool, name: str | None = None) -> Image.Image:
    """The picture in the content of an image file; ``name`` is what messages call it."""
    name = name or f"the {len(data)} bytes"
    if not data:
        raise _invalid(f"{name} hold no image: they are empty" if name.startswith("the") else f"the file {name} is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise _invalid(
            f"{name}: not an image in a format that is read here (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF …); it begins with {data[:12]!r}"
        ) from None
    except Exception as error:
        raise _broken(name, error) from error
    return _decode(image, name, auto_orient)


def _decode(image: Image.Image, name: str, auto_orient: bool) -> Image.Image:
    """The pixels of an opened picture, in RGB."""
    if not image.width or not image.height:
        raise _invalid(f"{name} has no pixels: its size is {image.width} x {image.height}")
    try:
        image.load()
        turned = image.transpose(UPRIGHT[orientation]) if auto_orient and (orientation := _orientation(image)) in UPRIGHT else image
        return to_rgb(turned)
    except InvalidImage:
        raise
    except Exception as error:  # Pillow's decoders raise whatever the broken bytes led them to
        raise _broken(name, error) from error


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or none that can be read."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse a sound picture
        return 1


def _broken(name: str, error: Exception) -> InvalidImage:
    """What is said of a picture that can't be decoded."""
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return _invalid(f"{name}: more pixels than are decoded here; scale it down first ({error})")
    return _invalid(f"{name}: the image is damaged or incomplete ({type(error).__name__}: {error})")


def _kind(value: object) -> str:
    """A value's type, with what helps to make an image of it."""
    if type(value).__module__.partition(".")[0] == "torch":
        return "a torch tensor; give tensor.numpy() as uint8, channels last"
    if hasattr(value, "read"):
        return f"{type(value).__name__}; give what its read() returns"
    return "None" if value is None else type(value).__name__


def _invalid(message: str) -> InvalidImage:
    return InvalidImage(message, field="image")
