"""Pictures of a data set: linked, copied or left where they are; those that readers would read otherwise are written anew.

In: a labelled picture and the name it shall have. Out: where the data set has it. A file that its EXIF data turn, or that is in a format
that common readers of data sets do not read (HEIC, AVIF, TIFF, GIF), is written upright as JPEG or PNG. A picture whose file is gone,
can't be read, or has another size than when it was labelled is refused with the reason. Holds one picture at a time.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from florence2.datasets.labelled import LabelledPicture
from florence2.datasets.writers.names import with_suffix
from florence2.datasets.writers.written import Notices, WriteOptions
from florence2.errors import InvalidImage
from florence2.image_files import Structure, describe, inspect
from florence2.images import read_bytes

TURNED = "pictures were written anew, upright, because their EXIF data turn them"
CONVERTED = "pictures were written anew as JPEG or PNG, because readers of data sets do not read their format"
SYMBOLIC = "pictures lie on another file system and are linked symbolically, which some readers refuse; copies would be read by all"
CHANGED = (
    "pictures have changed since they were labelled, so that labels may not fit; label them again, by the command that they were given to"
)
LEFT_TURNED = "pictures, left where they are, are turned by their EXIF data; the labels are those of the upright picture"
# Formats that all common readers read, with the endings that they know them by.
_ENDINGS = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "BMP": (".bmp",)}
_LOSSY = ("JPEG", "WEBP", "AVIF", "HEIF")
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class PictureFile:
    """A picture as it is put into a data set.

    Attributes:
        content: the bytes of the file.
        suffix: the ending of its name, which tells the format.
        is_original: whether these are the bytes of the file that was labelled.
    """

    content: bytes
    suffix: str
    is_original: bool


def upright_file(
    picture: LabelledPicture, notices: Notices, keep: tuple[str, ...] = tuple(_ENDINGS), form: str = "", converted: str = CONVERTED
) -> PictureFile:
    """The picture as a file that every reader reads upright.

    Args:
        picture: what was labelled.
        notices: counts the pictures that are written anew.
        keep: the formats that stay as they are, by Pillow's names.
        form: what the others become, ``JPEG`` or ``PNG``; empty is JPEG for lossy formats and PNG for all others.
        converted: the notice on those that are of another format.

    Raises:
        InvalidImage: its file is gone, can't be read, or is another picture by now.
    """
    content, structure = _stored(picture, notices)
    turned = structure.orientation != 1
    if structure.format in keep and not turned:
        return PictureFile(content, _suffix(picture.name, structure.format), True)
    pixels = read_bytes(content, str(picture.file))
    _check_size(picture, pixels.size)
    notices.add(TURNED if turned else converted, picture.name)
    form = form or ("JPEG" if structure.format in _LOSSY else "PNG")
    file = io.BytesIO()
    pixels.save(file, form, **({"quality": _JPEG_QUALITY, "subsampling": 0} if form == "JPEG" else {}))
    return PictureFile(file.getvalue(), _ENDINGS[form][0], False)


def place(picture: LabelledPicture, name: str, folder: Path, options: WriteOptions, notices: Notices) -> str:
    """Put a picture into a data set.

    Args:
        picture: what was labelled.
        name: the picture's file in the folder, parts separated by ``/``; its ending is replaced where it does not tell the format.
        folder: the data set's.
        options: whether the picture is linked, copied or left.
        notices: counts the pictures that are written anew.

    Returns:
        The file's name in the folder, or the absolute path of a picture that is left where it is.

    Raises:
        InvalidImage: its file is gone, can't be read, or is another picture by now; or its name is taken.
    """
    if options.images == "leave":
        if _stored(picture, notices)[1].orientation != 1:
            notices.add(LEFT_TURNED, picture.name)
        return _writable_path(picture)
    file = upright_file(picture, notices)
    name = with_suffix(name, _ending(name, file.suffix))
    target = folder / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        is_copied = options.images == "copy" or not file.is_original or _is_mended_in_place(file)
        if is_copied or not _is_linked(picture, target, name, options.home or folder, notices):
            with target.open("xb") as copy:  # never through a link that is there
                copy.write(file.content)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InvalidImage(f"its name in the data set is taken: there is {error.filename} already", field="image") from None
    return name


def _writable_path(picture: LabelledPicture) -> str:
    """The path of a picture that is left, as files in UTF-8 can hold it."""
    path = str(picture.file)
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = path.encode("utf-8", "backslashreplace").decode()
        raise InvalidImage(
            f"its path {shown} is no Unicode text, so that no data set can name it; link or copy pictures", field="image"
        ) from None
    return path


def _stored(picture: LabelledPicture, notices: Notices) -> tuple[bytes, Structure]:
    """The file as it is now; one of another length than it had counts as changed."""
    try:
        content = picture.file.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidImage(f"its file {picture.file} can't be read any more: {reason}", field="image") from None
    structure = inspect(content)
    if structure is None:
        raise InvalidImage(f"its file {picture.file} is no picture any more: {describe(content)}", field="image")
    if structure.size is not None and structure.format in _ENDINGS:  # others, some of which turn by themselves, once they are decoded
        width, height = structure.size
        _check_size(picture, (height, width) if structure.orientation >= 5 else (width, height))
    if picture.num_bytes not in (None, len(content)):
        notices.add(CHANGED, picture.name)
    return content, structure


def _check_size(picture: LabelledPicture, size: tuple[int, int]) -> None:
    if size != picture.size:
        before, now = ("{} x {}".format(*each) for each in (picture.size, size))
        raise InvalidImage(f"its file {picture.file} has changed: it had {before} pixels when it was labelled, now {now}", field="image")


def _suffix(name: str, form: str) -> str:
    """The ending of a name in small letters where it tells the format, else one that does."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if suffix in _ENDINGS[form] else _ENDINGS[form][0]


def _ending(name: str, suffix: str) -> str:
    """The ending that a file gets: that of the name that it shall have, if it means the same format."""
    wanted = PurePosixPath(name).suffix
    return wanted if any(suffix in endings and wanted in endings for endings in _ENDINGS.values()) else suffix


def _is_mended_in_place(file: PictureFile) -> bool:
    """Whether a reader may write a picture's file anew, which must not reach the original through a link.

    Ultralytics 8.3.0 does so in place with JPEG files that do not end with their end marker, as those of many phones; 8.4.190 does not.
    """
    return file.suffix in _ENDINGS["JPEG"] and not file.content.endswith(b"\xff\xd9")


def _is_linked(picture: LabelledPicture, target: Path, name: str, home: Path, notices: Notices) -> bool:
    """Link a picture's file, and return whether that could be done.

    A hard link comes first: readers take it as a file of the data set, while some refuse a symbolic link that leads out of it.

    Args:
        picture: what was labelled.
        target: where the link is made.
        name: the link's name in the data set.
        home: the folder where the data set will lie. Symbolic links to what lies beside it are relative, so that it can be moved together
            with them; all others are absolute.
        notices: counts symbolic links.
    """
    try:
        os.link(os.path.realpath(picture.file), target)
        return True
    except OSError:  # another file system, or one without hard links
        pass
    surroundings = Path(os.path.abspath(home)).parent
    is_beside = picture.file.is_relative_to(surroundings)
    try:
        os.symlink(os.path.relpath(picture.file, os.path.abspath((home / name).parent)) if is_beside else picture.file, target)
    except OSError:
        return False
    notices.add(SYMBOLIC, picture.name)
    return True
