"""Image files opened and decoded by Pillow, within bounds, into RGB.

In: any source of a picture. Out: a Pillow image in RGB, or ``InvalidImage`` with what came and what to do. Files are opened by the plugin
of the format that ``image_files`` found, never by asking all of Pillow's plugins.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, ImageFile

from florence2.errors import InvalidImage, OutOfMemory
from florence2.extras import requires
from florence2.image_files import MAX_PIXELS, START_BYTES, Structure, describe, format_of, inspect
from florence2.image_files.exif import ORIENTATION_TAG
from florence2.images.arrays import from_array, from_tensor
from florence2.images.colours import decoded_by_libtiff, is_in_planes_of_16_bits, to_srgb, unsigned
from florence2.images.kinds import ImageInput, kind_of_input, kind_of_text
from florence2.images.messages import invalid, is_folder, no_file, not_a_file_url, shown, type_of, unreadable
from florence2.images.modes import to_rgb

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
_TURNED = ("AVIF", "HEIF")  # by their decoders, as their own boxes say
_BACK = {6: 8, 8: 6}  # what undoes a turn, where it is another one
_LOADING = tuple(threading.Lock() for _ in range(64))


def read_image(image: ImageInput, *, auto_orient: bool = True) -> Image.Image:
    """The picture in RGB, 8 bits a channel.

    Args:
        image: a path, the bytes of an image file, a Pillow image, an array of uint8 or of floats from 0 to 1, ``[height, width]``
            (grey), ``[height, width, 3]`` (RGB) or ``[height, width, 4]`` (RGBA), or a tensor of PyTorch, ``[channels, height, width]``.
        auto_orient: turn files and bytes upright by their EXIF orientation. Pillow images and arrays are taken as they are.

    Raises:
        InvalidImage: what came holds no readable image.
        OutOfMemory: there is not enough memory to decode it.
    """
    given: Any = image
    kind = kind_of_input(given)
    if kind in ("array", "tensor"):
        return to_rgb(from_array(given) if kind == "array" else from_tensor(given))
    if kind == "picture":
        loaded = load(given)
        with as_refusals("the Pillow image", loaded.size):
            return to_rgb(loaded)
    if kind == "bytes":
        return read_bytes(bytes(given), f"the {len(given)} bytes", auto_orient=auto_orient)
    if kind is not None:
        return _from_path(os.fsdecode(given), auto_orient)
    raise invalid(f"an image must be a path, bytes, a Pillow image, a numpy array or a torch tensor, got {type_of(given)}")


def read_bytes(data: bytes, name: str, *, auto_orient: bool = True, at: int | None = None) -> Image.Image:
    """The picture in the content of an image file, in RGB.

    Args:
        data: the file.
        name: what messages call it.
        auto_orient: turn it upright by its EXIF orientation.
        at: where one of the pages of a TIFF begins; None for the first.

    Raises:
        InvalidImage: it holds no readable image.
        OutOfMemory: there is not enough memory to decode it.
    """
    return decode(inspected(data, name, at), name, auto_orient=auto_orient)


def open_file(structure: Structure, name: str) -> Image.Image:
    """A file opened: its size and mode are known, its pixels not yet decoded.

    Raises:
        InvalidImage: it is damaged, of a kind that is not read, or too large.
    """
    opener = _opener(structure, name)
    try:
        # Not by Image.open, which warns of large pictures; they are bounded here.
        with _without_size_warning(structure):
            image = opener(io.BytesIO(structure.data), "")
            if is_in_planes_of_16_bits(image):
                with decoded_by_libtiff():
                    image = opener(io.BytesIO(structure.data), "")
    except SyntaxError as error:
        if structure.description is None:
            raise _broken(name, error) from error
        raise invalid(
            f"{name}: it is {structure.description}, which is not read here; convert it to 8 bits a channel, grey or RGB"
        ) from None
    except Exception as error:  # Pillow raises whatever the broken bytes led it to
        raise _broken(name, error) from error
    check_pixels(image.size, name)
    return image


def _opener(structure: Structure, name: str) -> Callable[[io.BytesIO, str], Image.Image]:
    """What opens the files of a format.

    Raises:
        InvalidImage: it is not installed.
    """
    if structure.format == "HEIF":
        with requires("heif", "a HEIC picture"):
            from pillow_heif import HeifImageFile  # not registered with Pillow: what else opens files there stays as it is

            return HeifImageFile
    if structure.format not in Image.OPEN:
        Image.init()
    if structure.format not in Image.OPEN:
        raise invalid(f"{name}: this installation of Pillow reads no {structure.format}; convert it to JPEG or PNG")
    return Image.OPEN[structure.format][0]


def decode(structure: Structure, name: str, *, auto_orient: bool = True, image: Image.Image | None = None) -> Image.Image:
    """The picture in a file, in RGB.

    Args:
        structure: what ``image_files.inspect`` gave.
        name: what messages call it.
        auto_orient: turn it upright.
        image: what ``open_file`` gave for it; None to open it here.

    Raises:
        InvalidImage: it is damaged, incomplete or too large.
        OutOfMemory: there is not enough memory to decode it.
    """
    image = image if image is not None else open_file(structure, name)
    with as_refusals(name, image.size):
        # Pillow turns a TIFF upright while it is loaded.
        undone = exif_orientation(image) if structure.format == "TIFF" and not auto_orient else 1
        image.load()
        orientation = orientation_in(structure, image) if auto_orient else _BACK.get(undone, undone)
        image = to_srgb(unsigned(image))
        picture = to_rgb(image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image)
    if auto_orient:
        for name in ("exif", "xmp"):  # kept of AVIF files, they would have an upright picture turned once more
            picture.info.pop(name, None)
    return picture


def load(image: Image.Image) -> Image.Image:
    """A caller's Pillow image with its pixels decoded; several threads may load the same at once.

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
        structure = inspected(data, "the image")
        return open_file(structure, "the image").size if structure.format in _TURNED else structure.size
    except InvalidImage:
        return None


def _from_path(path: str, auto_orient: bool) -> Image.Image:
    """The picture in a file."""
    if (complaint := _not_a_path(path)) is not None:
        raise invalid(complaint)
    try:
        data = _read(path)
    except FileNotFoundError:
        raise invalid(no_file(path)) from None
    except IsADirectoryError:
        raise invalid(is_folder(path)) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise invalid(unreadable(path, error)) from error
    return read_bytes(data, shown(path), auto_orient=auto_orient)


def _read(path: str) -> bytes:
    """What a file holds; of a device or pipe that brings no picture only the start, as it may have no end."""
    with open(path, "rb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file.read()
        start = file.read(START_BYTES)
        return start if format_of(start) is None else start + file.read()


def _not_a_path(text: str) -> str | None:
    """The sentence about a text that is something else than a path; None where it may be a path."""
    kind = kind_of_text(text)
    if kind == "data_uri":
        return "an image must be a path, not a data URI: decode what stands behind its comma with base64.b64decode and give those bytes"
    if kind == "file_url":
        return not_a_file_url(text)
    if kind == "url":
        return f"an image must be a path, not a URL: Engine.run_images fetches {shown(text)}, or give the bytes that it leads to"
    if kind == "base64":
        return f"an image must be a path, not base64 ({len(text)} characters of it): decode it with base64.b64decode and give those bytes"
    return None


def inspected(data: bytes, name: str, at: int | None = None) -> Structure:
    """The structure of an image file, without decoding it.

    Raises:
        InvalidImage: it is empty, in no format that is read here, or has a structure that no valid picture has.
    """
    if not data:
        raise invalid(f"{name} hold no image: they are empty" if name.startswith("the ") else f"the file {name} is empty")
    try:
        structure = inspect(data, at)
    except InvalidImage as error:
        raise invalid(f"{name}: {error.message}") from None
    if structure is None:
        raise invalid(f"{name}: {describe(data)}")
    if structure.size is not None:
        check_pixels(structure.size, name)
    return structure


def orientation_in(structure: Structure, image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or none that can be read."""
    return exif_orientation(image) if structure.format == "AVIF" else structure.orientation


def exif_orientation(image: Image.Image) -> int:
    """The orientation that Pillow knows of an image, which is one of EXIF's eight or anything else; 1 where none can be read."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse a valid picture
        return 1


def check_pixels(size: tuple[int, int], name: str) -> None:
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
def as_refusals(name: str, size: tuple[int, int]) -> Iterator[None]:
    """Errors of decoding as errors of this package."""
    try:
        yield
    except InvalidImage:
        raise
    except Exception as error:  # Pillow's decoders raise whatever the broken bytes led them to
        raise _failure(name, size, error) from error


def _failure(name: str, size: tuple[int, int], error: Exception) -> InvalidImage | OutOfMemory:
    """The error for a picture whose decoding failed."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return OutOfMemory(
            f"there is not enough memory to decode a picture of {size[0]} x {size[1]} pixels; try again later, or scale it down",
            field="image",
        )
    return _broken(name, error)


def _broken(name: str, error: Exception) -> InvalidImage:
    """The error for a picture that can't be decoded."""
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return invalid(f"{name}: more pixels than are decoded here; scale it down first")
    return invalid(f"{name}: the image is damaged or incomplete ({type(error).__name__}: {str(error)[:200]})")


def _is_closed(image: Image.Image, error: Exception) -> bool:
    """Whether an image can't be loaded because it, or its file, is closed."""
    return "closed" in str(error) or (isinstance(image, ImageFile.ImageFile) and getattr(image, "fp", None) is None)
