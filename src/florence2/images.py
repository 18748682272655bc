"""Any source of a picture made into RGB: a path, the bytes of a file, a Pillow image, or an array.

The one place that opens image files, for engine, server, client and data sets. What decoding costs is bounded by the file's
structure first (``image_files``). Every kind of file has one defined outcome, written down in ``docs/decisions/0004-pixels.md``;
what holds no image is refused with what came and what to do. Knows nothing of prompts, models or torch.
"""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from florence2.errors import InvalidImage, OutOfMemory
from florence2.image_files import MAX_PIXELS, Structure, describe
from florence2.image_files import inspect as inspect_file
from florence2.modes import to_rgb

ImageInput = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]

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
ORIENTATION = 0x0112  # the EXIF tag
MAX_MESSAGE_CHARS = 500
_BASE64_START = re.compile(r"/9j/|iVBORw0K|R0lGOD|UklGR|SUkqA|TU0AK|Qk[0-3]|AAAA..Z0eX")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)
_LOADING = tuple(threading.Lock() for _ in range(64))


def read_image(image: ImageInput, *, auto_orient: bool = True) -> Image.Image:
    """The picture in RGB, 8 bits a channel.

    Args:
        image: a path, the bytes of an image file, a Pillow image, or an array of uint8, ``[height, width]`` (grey),
            ``[height, width, 3]`` (RGB) or ``[height, width, 4]`` (RGBA).
        auto_orient: turn files and bytes upright by their EXIF orientation. Pillow images and arrays are taken as they are.

    Raises:
        InvalidImage: what came holds no readable image.
        OutOfMemory: there is not enough memory to decode it.
    """
    if isinstance(image, np.ndarray):
        return to_rgb(_from_array(image))
    if isinstance(image, Image.Image):
        loaded = load(image)
        with _as_refusals("the Pillow image", loaded.size):
            return to_rgb(loaded)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(image), auto_orient, f"the {len(image)} bytes")
    if isinstance(image, (str, os.PathLike)):
        return _from_path(os.fspath(image), auto_orient)
    raise invalid(f"an image must be a path, bytes, a Pillow image or a numpy array, got {kind_of(image)}")


def inspect(data: bytes, name: str) -> Structure:
    """What the content of an image file says of itself, without decoding it.

    Args:
        data: the file.
        name: what messages call it.

    Raises:
        InvalidImage: it is empty, in no format that is read here, or has a structure that no sound picture has.
    """
    if not data:
        raise invalid(f"{name} hold no image: they are empty" if name.startswith("the ") else f"the file {name} is empty")
    try:
        structure = inspect_file(data)
    except InvalidImage as error:
        raise invalid(f"{name}: {error.message}") from None
    if structure is None:
        raise invalid(f"{name}: {describe(data)}")
    if structure.size is not None:
        _check_pixels(structure.size, name)
    return structure


def open_file(structure: Structure, name: str) -> Image.Image:
    """A file opened: its size and mode are known, its pixels not yet decoded.

    Raises:
        InvalidImage: it is damaged, of a kind that is not read, or too large.
    """
    if structure.format not in Image.OPEN:
        Image.init()
    if structure.format not in Image.OPEN:
        raise invalid(f"{name}: this installation of Pillow reads no {structure.format}; convert it to JPEG or PNG")
    try:
        # Not by Image.open, which warns of large pictures; they are bounded here.
        with _without_size_warning(structure):
            image = Image.OPEN[structure.format][0](io.BytesIO(structure.data), "")
    except SyntaxError as error:
        if structure.description is None:
            raise _broken(name, error) from error
        raise invalid(
            f"{name}: it is {structure.description}, which is not read here; convert it to 8 bits a channel, grey or RGB"
        ) from None
    except Exception as error:  # Pillow raises whatever the broken bytes led it to
        raise _broken(name, error) from error
    _check_pixels(image.size, name)
    return image


def decode(structure: Structure, name: str, *, auto_orient: bool = True, image: Image.Image | None = None) -> Image.Image:
    """The picture in a file, in RGB.

    Args:
        structure: what ``inspect`` gave.
        name: what messages call it.
        auto_orient: turn it upright.
        image: what ``open_file`` gave for it, if it is open already.

    Raises:
        InvalidImage: it is damaged, incomplete or too large.
        OutOfMemory: there is not enough memory to decode it.
    """
    image = image if image is not None else open_file(structure, name)
    with _as_refusals(name, image.size):
        image.load()
        orientation = _orientation(structure, image) if auto_orient else 1
        picture = to_rgb(image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image)
    if auto_orient:
        for name in ("exif", "xmp"):  # kept of AVIF files, they would have an upright picture turned once more
            picture.info.pop(name, None)
    return picture


def load(image: Image.Image) -> Image.Image:
    """A caller's Pillow image with its pixels decoded; several threads may ask for the same at once.

    Raises:
        InvalidImage: it has no pixels, is closed, or is damaged.
        OutOfMemory: there is not enough memory to decode it.
    """
    if not image.width or not image.height:
        raise invalid(f"the Pillow image has no pixels: its size is {image.width} x {image.height}")
    with _LOADING[id(image) // 64 % len(_LOADING)]:
        try:
            image.load()
        except (ValueError, AttributeError, AssertionError) as error:
            if not _is_closed(image, error):
                raise _broken("the Pillow image", error) from error
            raise invalid(
                "the Pillow image is closed: its pixels were not loaded before its file was closed; call image.load() inside the "
                "`with` block, or give the path instead"
            ) from None
        except Exception as error:
            raise _failure("the Pillow image", image.size, error) from error
    return image


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height of an image file, as stored; None where it holds no readable picture."""
    try:
        structure = inspect(data, "the image")
        return structure.size if structure.format != "AVIF" else open_file(structure, "the image").size
    except InvalidImage:
        return None


def kind_of(value: object) -> str:
    """A value's type, with what helps to make an image of it."""
    if type(value).__module__.partition(".")[0] == "torch":
        return "a torch tensor; give tensor.numpy() as uint8, channels last"
    if hasattr(value, "read"):
        return f"{type(value).__name__}; give what its read() returns"
    return "None" if value is None else type(value).__name__[:60]


def shown(text: str) -> str:
    """A text as messages repeat it: whole where it is short."""
    return repr(text) if len(text) <= 120 else repr(text[:60]) + f"… ({len(text)} characters)"


def invalid(message: str) -> InvalidImage:
    """The error about an image; its message has an end."""
    return InvalidImage(shortened(message), field="image")


def shortened(message: str) -> str:
    """A message of an error, cut where it is too long to be read."""
    return message if len(message) <= MAX_MESSAGE_CHARS else message[: MAX_MESSAGE_CHARS - 1] + "…"


def _from_array(array: NDArray[Any]) -> Image.Image:
    """A picture of an array, which has to look like one."""
    wanted = "an image array must be uint8 of shape [height, width], [height, width, 3] (RGB) or [height, width, 4] (RGBA)"
    if array.dtype != np.uint8:
        hint = "; scale it to 0..255 and convert it with .astype(numpy.uint8)" if array.dtype.kind in "fiu" else ""
        raise invalid(f"{wanted}, got {shown_type(array)}{hint}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        hint = "; move the channels to the end" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise invalid(f"{wanted}, got {list(array.shape)}{hint}")
    if not array.size:
        raise invalid(f"{wanted}, got an empty one: {list(array.shape)}")
    return Image.fromarray(array)


def shown_type(array: NDArray[Any]) -> str:
    """An array's type of number; records have long ones."""
    text = str(array.dtype)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _from_path(path: str | bytes, auto_orient: bool) -> Image.Image:
    """The picture in a file."""
    text = os.fsdecode(path)
    if (complaint := _not_a_path(text)) is not None:
        raise invalid(f"an image must be a path, {complaint}")
    try:
        data = Path(text).read_bytes()
    except FileNotFoundError:
        raise invalid(f"there is no file {shown(text)}; the current folder is {shown(os.getcwd())}") from None
    except IsADirectoryError:
        raise invalid(f"{shown(text)} is a folder; give the path of an image file") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise invalid(f"the file {shown(text)} can't be read: {reason}") from error
    return _from_bytes(data, auto_orient, shown(text))


def _not_a_path(text: str) -> str | None:
    """What a text is instead of a path, and what to do; None where it may be a path."""
    start = text[:64].lstrip()
    if start[:5].lower() == "data:":
        return "not a data URI: decode what stands behind its comma with base64.b64decode and give those bytes"
    if start[:5].lower() == "file:":
        return f"not a file URL: give {shown(text.strip()[5:].removeprefix('//'))}"
    if (match := _SCHEME.match(start)) and len(match[1]) > 1:  # one letter is a drive
        return f"not a URL: download {shown(text)} first and give the file or its bytes"
    if _BASE64_START.match(start) and len(text) >= 64 and not os.path.exists(text[:4096]):
        return f"not base64 ({len(text)} characters of it): decode it with base64.b64decode and give those bytes"
    return None


def _from_bytes(data: bytes, auto_orient: bool, name: str) -> Image.Image:
    """The picture in the content of an image file; ``name`` is what messages call it."""
    return decode(inspect(data, name), name, auto_orient=auto_orient)


def _orientation(structure: Structure, image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or none that can be read."""
    return structure.orientation if structure.format != "AVIF" else exif_orientation(image)  # AVIF's own boxes turn a picture, too


def exif_orientation(image: Image.Image) -> int:
    """The orientation that Pillow knows of an image, which is one of EXIF's eight or anything else; 1 where none can be read."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse a valid picture
        return 1


def _check_pixels(size: tuple[int, int], name: str) -> None:
    """Refuse a picture without pixels, and one of more than are decoded."""
    width, height = size
    if not width or not height:
        raise invalid(f"{name} has no pixels: its size is {width} x {height}")
    if width * height > MAX_PIXELS:
        raise invalid(f"{name}: {width} x {height} are more pixels than the {MAX_PIXELS} that are decoded here; scale it down first")


@contextmanager
def _without_size_warning(structure: Structure) -> Iterator[None]:
    """Without Pillow's warning of large pictures, which its GIF reader gives by itself."""
    if structure.format != "GIF" or structure.work * 2 <= MAX_PIXELS:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


@contextmanager
def _as_refusals(name: str, size: tuple[int, int]) -> Iterator[None]:
    """Whatever decoding raises as an error of this package."""
    try:
        yield
    except InvalidImage:
        raise
    except Exception as error:  # Pillow's decoders raise whatever the broken bytes led them to
        raise _failure(name, size, error) from error


def _failure(name: str, size: tuple[int, int], error: Exception) -> InvalidImage | OutOfMemory:
    """What is said of a picture whose decoding failed."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return OutOfMemory(
            f"there is not enough memory to decode a picture of {size[0]} x {size[1]} pixels; try again later, or scale it down",
            field="image",
        )
    return _broken(name, error)


def _broken(name: str, error: Exception) -> InvalidImage:
    """What is said of a picture that can't be decoded."""
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return invalid(f"{name}: more pixels than are decoded here; scale it down first")
    return invalid(f"{name}: the image is damaged or incomplete ({type(error).__name__}: {str(error)[:200]})")


def _is_closed(image: Image.Image, error: Exception) -> bool:
    """Whether an image can't be loaded because it, or its file, is closed."""
    return "closed" in str(error) or (isinstance(image, ImageFile.ImageFile) and getattr(image, "fp", None) is None)
