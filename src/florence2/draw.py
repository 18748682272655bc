"""A result drawn on its image.

In: a picture and a ``Result``. Out: a copy with boxes, quads and polygons in distinct colours, each with its label (and
score), or with the text answer on a strip below. Line width and letters grow with the picture. Needs Pillow only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from florence2.results import Result

# Told apart on most backgrounds and by most eyes: the palette of Okabe and Ito without its black and yellow, and two more.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F3C8D", "#B00020")
STRIP_COLOUR = "#FFFFFF"
TEXT_COLOUR = "#1A1A1A"
FILL_OPACITY = 70  # of 255, over the inside of polygons


class Mark(NamedTuple):
    """One object to draw: its outlines, flat lists x, y, x, y, …, and the words beside it."""

    outlines: list[Sequence[float]]
    is_filled: bool
    label: str
    colour: str


def annotate(image: Image.Image, result: Result) -> Image.Image:
    """A copy of ``image`` with ``result`` drawn on it; a text answer makes it taller by a strip.

    Args:
        image: the picture that was asked about, upright, of the result's size.
        result: any result.
    """
    marks = list(_marks(result))
    canvas = image.convert("RGB")
    if result.kind == "text":
        return _with_strip(canvas, f"{result.task}  {result.text}")
    if not marks:
        return _with_strip(canvas, f"{result.task}  nothing found")
    line = max(2, round(min(canvas.size) / 180))
    font = _font(canvas)
    canvas = _filled(canvas, [mark for mark in marks if mark.is_filled])
    pen = ImageDraw.Draw(canvas)
    for mark in marks:
        for colour, width in (("#FFFFFF", line + 2), (mark.colour, line)):  # a thin white rim parts line and picture
            for outline in mark.outlines:
                pen.line([*outline, *outline[:4]], fill=colour, width=width, joint="curve")
    for mark in marks:  # after all lines, which would cross them out
        _write_label(pen, mark, font, canvas.size)
    return canvas


def _marks(result: Result) -> Iterator[Mark]:
    """The objects of a result; a label has one colour wherever it comes."""
    shapes = result.boxes or result.quads or result.polygons
    colour_of: dict[str, str] = {}
    for index, shape in enumerate(shapes):
        name = result.labels[index] if index < len(result.labels) else ""
        colour = colour_of.setdefault(name or str(index), COLOURS[len(colour_of) % len(COLOURS)])
        score = "" if result.scores is None else f" {result.scores[index]:.2f}"
        if result.boxes:
            left, top, right, bottom = result.boxes[index]
            outlines: list[Sequence[float]] = [(left, top, right, top, right, bottom, left, bottom)]
        elif result.quads:
            outlines = [result.quads[index]]
        else:
            outlines = [polygon for polygon in result.polygons[index] if len(polygon) >= 4]
        if outlines and shape:
            yield Mark(outlines, bool(result.polygons), (name + score).strip(), colour)


def _filled(canvas: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """The insides of polygons, tinted so that the picture still shows."""
    for mark in marks:
        veil = Image.new("L", canvas.size)
        pen = ImageDraw.Draw(veil)
        for outline in mark.outlines:
            if len(outline) >= 6:
                pen.polygon(list(outline), fill=FILL_OPACITY)
        canvas.paste(Image.new("RGB", canvas.size, mark.colour), mask=veil)
    return canvas


def _write_label(pen: ImageDraw.ImageDraw, mark: Mark, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, size: tuple[int, int]) -> None:
    """The label on a plate above the object's top left corner, moved to where it lies inside the picture."""
    if not mark.label:
        return
    first = mark.outlines[0]
    left, top = min(first[0::2]), min(first[1::2])
    box = pen.textbbox((0, 0), mark.label, font=font)
    margin = max(2, round((box[3] - box[1]) / 5))
    width, height = box[2] - box[0] + 2 * margin, box[3] - box[1] + 2 * margin
    x = max(0, min(left, size[0] - width))
    y = top - height if top >= height else min(top, size[1] - height)
    pen.rectangle((x, y, x + width, y + height), fill=mark.colour)
    pen.text((x + margin - box[0], y + margin - box[1]), mark.label, fill="#FFFFFF", font=font)


def _with_strip(canvas: Image.Image, text: str) -> Image.Image:
    """The picture with words on a strip below it."""
    font = _font(canvas)
    pen = ImageDraw.Draw(canvas)
    lines = _wrapped(pen, text, font, canvas.width * 0.96)
    line_height = round((pen.textbbox((0, 0), "Ag", font=font)[3]) * 1.35)
    taller = Image.new("RGB", (canvas.width, canvas.height + line_height * len(lines) + line_height // 2), STRIP_COLOUR)
    taller.paste(canvas)
    pen = ImageDraw.Draw(taller)
    for number, line in enumerate(lines):
        pen.text((canvas.width * 0.02, canvas.height + line_height * (number + 0.25)), line, fill=TEXT_COLOUR, font=font)
    return taller


def _wrapped(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float) -> list[str]:
    """The text in lines of at most ``width`` pixels, broken between words where it can be."""
    lines = [""]
    for word in text.split():
        for piece in _cut(pen, word, font, width):
            joined = f"{lines[-1]} {piece}".strip()
            if lines[-1] and pen.textlength(joined, font=font) > width:
                lines.append(piece)
            else:
                lines[-1] = joined
    return lines


def _cut(pen: ImageDraw.ImageDraw, word: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float) -> Iterator[str]:
    """A word in pieces that fit."""
    start = 0
    for end in range(1, len(word) + 1):
        if end - start > 1 and pen.textlength(word[start:end], font=font) > width:
            yield word[start : end - 1]
            start = end - 1
    yield word[start:]


def _font(canvas: Image.Image) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's own font, in a size that reads at the picture's size."""
    return ImageFont.load_default(size=max(11, round(min(canvas.size) / 32)))
