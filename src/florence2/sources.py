"""The picture that a request was about, remembered by its result, and read again to draw on.

In: an image as the caller gave it. Out: the picture in the frame in which the result's coordinates count, at the result's size. Only a
reference is kept, never a copy; a file has to be unchanged since the request. Knows nothing of drawing.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from florence2.errors import InvalidImage
from florence2.images import UPRIGHT, ImageInput, exif_orientation, load, read_image
from florence2.images.kinds import kind_of_input
from florence2.images.messages import invalid, shown

Size = tuple[int, int]
PASS_IT = "pass the picture that was asked about: result.draw(picture)"
NOT_HELD = f"this result does not hold its picture (it came from a server or a file, or keep_image was False): {PASS_IT}"


@dataclass(frozen=True, eq=False)
class Source:
    """The image of a request.

    Attributes:
        image: as the caller gave it; a path is absolute. None where only the frame of its coordinates is known.
        auto_orient: whether a file or bytes were turned upright.
        stamp: size and time of change of the file at the request; None for what is no regular file.
    """

    image: ImageInput | None
    auto_orient: bool = True
    stamp: tuple[int, int] | None = None

    @property
    def is_upright(self) -> bool:
        """Whether coordinates count in the picture as EXIF has it turned; otherwise in the pixels as they are stored."""
        if isinstance(self.image, Image.Image):
            return _orientation(self.image) == 1
        return self.auto_orient and kind_of_input(self.image) not in ("array", "tensor")

    def without_image(self) -> Source | None:
        """The source without its picture, which says that coordinates count in the pixels as stored; None where they do not."""
        return None if self.is_upright else Source(None, auto_orient=False)

    def read(self) -> Image.Image:
        """The picture in RGB, read again.

        Raises:
            InvalidImage: the source has no picture, or its file is gone, was changed, or could be read only once.
        """
        if self.image is None:
            raise invalid(NOT_HELD)
        if isinstance(self.image, str):
            self._check_file(self.image)
        return read_image(self.image, auto_orient=self.auto_orient)

    def _check_file(self, path: str) -> None:
        if self.stamp is None:
            raise invalid(f"{shown(path)} is a pipe or device, which can be read only once: {PASS_IT}")
        if not os.path.isfile(path):
            raise invalid(f"the file {shown(path)} is gone since the question: {PASS_IT}")
        if _stamp(path) != self.stamp:
            raise invalid(f"the file {shown(path)} was changed after the question: ask again, or {PASS_IT}")


def remember(image: ImageInput, auto_orient: bool = True) -> Source:
    """The source of a request, to be kept with its result."""
    if isinstance(image, (str, os.PathLike)):
        path = _absolute(os.fsdecode(image))
        return Source(path, auto_orient, _stamp(path))
    return Source(image, auto_orient)


def picture_for(size: Size, given: ImageInput | None, source: Source | None) -> Image.Image:
    """The picture to draw a result on, in RGB.

    A picture with an EXIF orientation can be meant as stored or as turned: it is taken as in the request, or else in the way whose
    size fits.

    Args:
        size: the result's image size, width and height.
        given: any form of the picture; None for the one of the request.
        source: the source of the request; None where it is not known.

    Raises:
        InvalidImage: the picture can't be read, has another size, or is not known.
    """
    size = (size[0], size[1])  # may have come as a list
    if given is None:
        if source is None:
            raise invalid(NOT_HELD)
        return _fitting(source.read(), size)
    upright = source is None or source.is_upright
    picture = _read(given, upright)
    if picture.size != size:
        other = _read(given, not upright)
        picture = other if other.size == size else picture
    return _fitting(picture, size)


def _read(given: ImageInput, upright: bool) -> Image.Image:
    """A picture turned by its EXIF orientation, or as it is stored."""
    if not isinstance(given, Image.Image):
        return read_image(given, auto_orient=upright)
    turn = UPRIGHT.get(_orientation(given)) if upright else None
    picture = read_image(given)
    return picture if turn is None else picture.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a Pillow image, 1 where there is none or none that can be read."""
    try:
        load(image)  # TIFF files are turned, and lose the tag, when they are loaded
    except Exception:  # what is closed or damaged says so when it is read
        return 1
    orientation = exif_orientation(image)
    return orientation if orientation in UPRIGHT else 1


def _fitting(picture: Image.Image, size: Size) -> Image.Image:
    """The picture itself, which has to have the size of the result's image."""
    if picture.size == size:
        return picture
    hint = "the picture that was asked about, at the size it had then"
    if picture.size == size[::-1]:
        hint += " (it lies on its side: give the file, or turn the picture upright)"
    raise InvalidImage(
        f"the picture has {picture.width} x {picture.height} pixels, but the result is about one of {size[0]} x {size[1]}: give {hint}",
        field="image",
    )


def _absolute(path: str) -> str:
    """The path from the root; as it is where there is none, such as in a folder that was removed."""
    try:
        return os.path.abspath(path)
    except (OSError, ValueError):  # ValueError: a path with a null byte
        return path


def _stamp(path: str) -> tuple[int, int] | None:
    """Size and time of change of a regular file; None for everything else."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # ValueError: a path with a null byte
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
