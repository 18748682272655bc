"""Small copies of labelled pictures, and their labels as marks to draw on them.

In: a labelled picture's file or its objects. Out: an upright picture in RGB of a limited size, or ``InvalidImage`` that says why there is
none; marks in the pixels of that copy. JPEG files are decoded at the size that is needed. Knows nothing of pages and sheets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from PIL import Image

from florence2.datasets.labelled import LabelledObject
from florence2.draw.marks import Mark, colour_of
from florence2.image_files import describe, inspect
from florence2.images import decode, open_file
from florence2.images.messages import invalid, shown, unreadable

MAX_LABEL_CHARS = 40


def read_thumbnail(file: Path, side: int) -> Image.Image:
    """A labelled picture's pixels, upright and in RGB, its sides at most ``side`` pixels.

    Raises:
        InvalidImage: the file is gone or holds no readable picture.
        OutOfMemory: there is not enough memory to decode it.
    """
    name = shown(str(file))
    try:
        structure = inspect(data := file.read_bytes())
    except FileNotFoundError:
        raise invalid(f"the file is gone: {name}") from None
    except OSError as error:
        raise invalid(unreadable(str(file), error)) from error
    if structure is None:
        raise invalid(f"{name}: {describe(data) if data else 'the file is empty'}")
    image = open_file(structure, name)
    image.draft(None, (side, side))  # a JPEG decoder leaves out what is not needed; the other formats do nothing
    picture = decode(structure, name, image=image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return picture


def colours_of(classes: Iterable[str]) -> Mapping[str, str]:
    """The colour of each class, the same on all pictures of a data set."""
    return {name: colour_of(index) for index, name in enumerate(classes)}


def marks_of(objects: Iterable[LabelledObject], colours: Mapping[str, str], scale: tuple[float, float]) -> Iterator[Mark]:
    """A mark for each object.

    Args:
        objects: what was found in a picture.
        colours: what ``colours_of`` gave.
        scale: width and height of the copy, by those of the picture.
    """
    for found in objects:
        left, top, right, bottom = found.box
        outlines = [outline for outline in found.polygons if len(outline) >= 6]
        shape = outlines or [(left, top, right, top, right, bottom, left, bottom)]
        scaled = [[value * scale[index % 2] for index, value in enumerate(outline)] for outline in shape]
        yield Mark(scaled, not outlines, bool(outlines) and not found.text, words_of(found), colours.get(found.label, "#000000"))


def words_of(found: LabelledObject) -> str:
    """What a label says: what was read or said, or the class, and the score."""
    words = shortened(found.text or found.label)
    return words if found.score is None else f"{words} {found.score:.2f}"


def shortened(text: str) -> str:
    """A text on one line, cut where it is long."""
    words = " ".join(text.split())
    return words if len(words) <= MAX_LABEL_CHARS else words[: MAX_LABEL_CHARS - 1] + "…"
