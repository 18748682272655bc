"""Pictures that are no files of their own, kept in ``DIR/pictures``: pages, frames, what came by URL, data URI or standard input.

In: an input and its pixels. Out: the file that has them. Bytes that came as a picture's file are kept as they are, pages become PNG files,
frames JPEG. A name is made of the picture's own and of its id, so that the same picture has the same file in a run that goes on. Knows
nothing of models.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from PIL import Image

from florence2.image_files import format_of

if TYPE_CHECKING:
    from florence2.inputs.input import Input

FOLDER = "pictures"
_JPEG_QUALITY = 95
_LONGEST_STEM = 80
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp"}
"""Of files that are kept as they came: what every reader of data sets reads."""


def file_of(image: Input, content: Image.Image, folder: Path) -> Path | None:
    """The file with the pixels of a picture, written where it has none of its own; None where the picture is its file.

    Args:
        image: where the picture came from.
        content: its pixels.
        folder: the run's.

    Raises:
        OSError: it can't be written.
    """
    if image.kind == "file" and image.part is None:
        return None
    is_frame = image.part is not None and image.part.unit != "page"
    kept = _SUFFIXES.get(_format(image.content)) if image.part is None and image.content else None
    suffix = kept or (".jpg" if is_frame else ".png")
    path = folder / FOLDER / f"{_stem(image)}{suffix}"
    path.parent.mkdir(exist_ok=True)
    if kept:
        path.write_bytes(image.content)
    elif is_frame:
        content.save(path, "JPEG", quality=_JPEG_QUALITY)
    else:
        content.save(path, "PNG")
    return path


def _stem(image: Input) -> str:
    plain = re.sub(r"[^\w.-]+", "-", PurePosixPath(image.relative_name).stem).strip("-.")[:_LONGEST_STEM]
    digest = hashlib.sha256(image.id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{plain or 'picture'}-{digest}"


def _format(content: bytes) -> str:
    return format_of(content[:64]) or ""
