"""From an input to its picture: files are read, URLs fetched by the same fetcher as the client's.

In: an ``Input``. Out: a Pillow image in RGB, upright, or ``InvalidImage`` with the reason, under the name that may be
shown. Knows nothing of prompts and engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from florence2.console import shown
from florence2.errors import InvalidImage, OutOfMemory
from florence2.inputs import urls
from florence2.inputs.find import Input

if TYPE_CHECKING:
    from PIL import Image


class Picture(NamedTuple):
    """An input with its pixels, or with what is wrong with it."""

    image: Input
    content: Image.Image | InvalidImage


def read(given: Input) -> Image.Image:
    """The picture of an input.

    Raises:
        InvalidImage: there is none, for whatever reason.
    """
    import florence2.images as images

    if given.error is not None:
        raise given.error
    try:
        if given.kind == "file":
            return images.read_image(given.path)
        content = urls.fetch(given.name) if given.kind == "url" else given.content
        if not content:
            raise _invalid(given, "it holds nothing")
        return images.read_bytes(content, shown(given.shown))
    except OutOfMemory as error:
        raise _invalid(given, error.message) from error
    except (OSError, MemoryError) as error:
        raise _invalid(given, reason(error)) from error


def picture_of(image: Input) -> Picture:
    """An input with its picture, or with what is wrong with it."""
    try:
        return Picture(image, read(image))
    except InvalidImage as error:
        return Picture(image, error)


def reason(error: OSError | MemoryError) -> str:
    """What the system says is wrong."""
    return "out of memory" if isinstance(error, MemoryError) else error.strerror or str(error)


def _invalid(given: Input, why: str) -> InvalidImage:
    return InvalidImage(f"{shown(given.shown)} can't be read: {why}", field="image")
