"""A result drawn on its picture.

In: the picture of a request and its ``Result``. Out: a new picture with boxes, quads and polygons in distinct colours, each with its
label (and score), or with the text answer on a strip below. Lines and letters scale with the picture.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageDraw

from florence2.draw import painting
from florence2.draw.fonts import FontInput, Fonts
from florence2.draw.layout import Rectangle, place_plates
from florence2.draw.lettering import Lettering, is_right_to_left, printable
from florence2.draw.marks import DARK, LIGHT, Mark, letters_on, marks_of, words_of
from florence2.errors import InvalidOption
from florence2.images import ImageInput
from florence2.sources import picture_for

if TYPE_CHECKING:
    from florence2.results import Result

MUTED = "#5F6368"
MIN_LETTERS = 8  # pixels; smaller letters are not readable
_SHRINKING = (1.0, 0.85, 0.7, 0.55, 0.45)
_MAX_COVERED = 0.35  # fraction of the picture that labels may cover before smaller letters are tried
_MAX_LINES = 8
_NARROWEST_STRIP = 8  # in sizes of its letters; narrower lines break words after a few letters
_log = logging.getLogger("florence2.draw")


class Plate(NamedTuple):
    """A label with its position in the picture."""

    spot: Rectangle
    lines: list[str]
    mark: Mark


class Labels(NamedTuple):
    """All labels of a picture, in one size of letters, and the number of labels without room."""

    lettering: Lettering
    margin: int
    plates: list[Plate]
    num_left_out: int


def annotate(source: ImageInput | None, result: Result, *, font: FontInput | None = None) -> Image.Image:
    """A new picture with ``result`` drawn on it; a text answer makes it taller by a strip, and a tiny picture wider.

    Args:
        source: the picture of the request: a path, the bytes of a file, a Pillow image or an array. Files are turned upright by their
            EXIF orientation, and so are Pillow images, unless the request used them as stored. None for the picture in the result.
        result: any result.
        font: a font file, or a font from ``PIL.ImageFont.truetype``, whose size is kept. It is used for all letters that it has; None for
            the package's font.

    Raises:
        InvalidImage: the picture can't be read, or its size is not that of the result.
        InvalidOption: ``font`` is no font, or ``result`` is no result.
    """
    if not hasattr(result, "image_size"):
        hint = "Result.from_dict makes one of an answer's dictionary"
        raise InvalidOption(f"result must be a Result, got {type(result).__name__:.60}; {hint}", field="result")
    return draw_on(picture_for(result.image_size, source, result.source), result, Fonts(font))


def draw_on(picture: Image.Image, result: Result, fonts: Fonts, *, with_strip: bool = True) -> Image.Image:
    """A copy of a picture, in its own or another size, with a result drawn on it; ``with_strip`` adds texts without location below."""
    canvas = picture.copy()
    marks = list(marks_of(result, picture.width / result.image_size[0]))
    paint(canvas, marks, arrange(named(marks), canvas.size, fonts))
    if with_strip and (result.kind == "text" or not marks):
        return _with_strip(canvas, result.task, words_of(result) if result.kind == "text" else "nothing found", fonts)
    return canvas


def named(marks: Sequence[Mark]) -> list[Mark]:
    """Those of some marks that have a label with something to see in it."""
    return [mark for mark in marks if printable(mark.label).strip()]


def paint(canvas: Image.Image, marks: Sequence[Mark], labels: Labels) -> None:
    """Draw marks and labels on a picture in RGB, which is changed: tints below, then lines, labels over all of them."""
    pens = painting.pens_for(canvas.size, [mark.box for mark in marks])
    for mark in marks:
        if mark.is_filled:
            painting.tint(canvas, mark)
    for mark in marks:
        painting.outline(canvas, mark, pens)
    _write(canvas, labels, pens)


def arrange(marks: Sequence[Mark], size: tuple[int, int], fonts: Fonts) -> Labels:
    """The labels of ``place_labels``, with a warning where some have no room."""
    labels = place_labels(marks, size, fonts)
    if labels.num_left_out:
        _log.warning("%d of %d labels have no room in %d x %d pixels; enlarge the picture", labels.num_left_out, len(marks), *size)
    return labels


def place_labels(marks: Sequence[Mark], size: tuple[int, int], fonts: Fonts) -> Labels:
    """The labels of some marks with their positions, in smaller letters if there is too little room.

    Args:
        marks: marks with a label.
        size: width and height of the picture.
        fonts: the fonts of the drawing.
    """
    largest = fonts.fixed_size or letters_for(size, [mark.box for mark in marks])
    sizes = [largest] if fonts.fixed_size else sorted({max(MIN_LETTERS, round(largest * share)) for share in _SHRINKING}, reverse=True)
    for letters in sizes[:-1]:
        if (labels := _arranged(marks, size, Lettering(fonts, letters))) is not None:
            return labels
    labels = _arranged(marks, size, Lettering(fonts, sizes[-1]), is_last=True)
    assert labels is not None
    return labels


def letters_for(size: tuple[int, int], objects: Sequence[Rectangle] = ()) -> int:
    """A readable size of letters for a picture; smaller if its objects are small, such as the lines of a document.

    Args:
        size: width and height of the picture.
        objects: the boxes of the labelled objects.
    """
    smallest = MIN_LETTERS if min(size) < 100 else 12
    letters = max(smallest, round(min(size) / 32))
    if not objects:
        return letters
    return max(smallest, round(letters * _SHRINKING[-1]), min(letters, round(painting.usual_side(objects) * 0.75)))


def _arranged(marks: Sequence[Mark], size: tuple[int, int], lettering: Lettering, *, is_last: bool = False) -> Labels | None:
    """The labels in one size of letters; None if smaller letters should be tried."""
    margin = max(1, round(lettering.size / 5))
    widest = min(size[0] - 2 * margin, max(0.36 * size[0], 18 * lettering.size))
    max_lines = max(1, min(_MAX_LINES, size[1] // 2 // lettering.line_height))
    lines = [lettering.balanced(mark.label, widest, max_lines) for mark in marks]
    plates = [(round(max(map(lettering.width, label))) + 2 * margin, lettering.height_of(label) + 2 * margin) for label in lines]
    if not is_last and sum(width * height for width, height in plates) > _MAX_COVERED * size[0] * size[1]:
        return None
    pens = painting.pens_for(size, [mark.box for mark in marks])
    outside = pens.line // 2 + pens.rim
    spots = place_plates(plates, [mark.anchor.grown(outside) for mark in marks], size, anywhere=is_last)
    if not is_last and None in spots:
        return None
    placed = [Plate(spot, label, mark) for spot, label, mark in zip(spots, lines, marks, strict=True) if spot is not None]
    return Labels(lettering, margin, placed, len(marks) - len(placed))


def _write(canvas: Image.Image, labels: Labels, pens: painting.Pens) -> None:
    """Draw the labels on plates in their objects' colours, over all lines."""
    for plate in labels.plates:
        if plate.spot.distance(plate.mark.box) > labels.lettering.size / 2:
            painting.leader(canvas, plate.spot, plate.mark.box, plate.mark.colour, pens)
    pen = ImageDraw.Draw(canvas)
    for spot, lines, mark in labels.plates:
        pen.rectangle((spot.left, spot.top, spot.right - 1, spot.bottom - 1), fill=mark.colour)
        inner = spot.right - spot.left - 2 * labels.margin
        labels.lettering.draw(pen, spot.left + labels.margin, spot.top + labels.margin, lines, letters_on(mark.colour), inner)


def _with_strip(canvas: Image.Image, task: str, text: str, fonts: Fonts) -> Image.Image:
    """The picture with a task's name and text on a strip below; the strip is wider than a very narrow picture."""
    lettering = Lettering(fonts, fonts.fixed_size or letters_for(canvas.size))
    gap = max(1, round(lettering.size * 0.6))
    whole = max(canvas.width, round(_NARROWEST_STRIP * lettering.size))
    width = max(1, whole - 2 * min(gap, whole // 8))
    title, words = lettering.wrapped(task, width), lettering.wrapped(text, width)
    left = (whole - width) // 2
    top = canvas.height + gap
    below = top + lettering.line_height * len(title)
    taller = Image.new("RGB", (whole, below + lettering.height_of(words) + gap), LIGHT)
    taller.paste(canvas)
    pen = ImageDraw.Draw(taller)
    lettering.draw(pen, left, top, title, MUTED)
    lettering.draw(pen, left, below, words, DARK, width if is_right_to_left(text) else 0)
    return taller
