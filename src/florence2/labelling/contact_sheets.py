"""Contact sheets: pages of small copies of labelled pictures with their labels drawn, to see at a glance what a run has made.

In: labelled pictures. Out: a few JPEG files, the same bytes for the same pictures and seed. Of many pictures, a sample is drawn at random,
and the sheets say so. A picture that can't be read any more has the reason in its place. Knows nothing of how pictures were labelled.
"""

from __future__ import annotations

import io
import os
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from florence2.console import shown
from florence2.datasets.labelled import LabelledPicture, LabelledSet
from florence2.draw.drawing import named, paint, place_labels
from florence2.draw.fonts import Fonts
from florence2.draw.lettering import Lettering
from florence2.draw.marks import Mark
from florence2.errors import InvalidImage, OutOfMemory
from florence2.labelling.thumbnails import colours_of, marks_of, read_thumbnail, shortened

NUM_COLUMNS, NUM_ROWS = 4, 5
CELL = (340, 256)  # pixels of a picture's place
GAP = 16
LETTERS = 14
NUM_LINES = 2  # below a picture, after its name
MAX_CHARS = 300  # more than these lines hold
PAPER, INK, SOFT, EMPTY = "#FFFFFF", "#1B1F27", "#5F6368", "#EEF0F3"
JPEG_QUALITY = 88
MAX_LABELS = 30  # of a picture; there is room for no more
MAX_CLASSES = 12  # named in the heading; the others are counted
_OWN_NAME = re.compile(r"sheet-(\d{3,})\.jpg")


def write_contact_sheets(data: LabelledSet, folder: Path, *, num_pictures: int = 200, seed: int = 0, title: str = "") -> list[Path]:
    """Write the sheets as ``sheet-001.jpg`` and so on, in place of those of an earlier call, and return their paths.

    Args:
        data: the labelled pictures.
        folder: where the sheets go; made if need be. Other files in it stay.
        num_pictures: how many pictures are shown at most; of more, that many are drawn at random.
        seed: of that draw.
        title: what the heading calls the pictures; the name of the folder around ``folder`` if empty.

    Raises:
        OSError: a sheet can't be written.
    """
    sample = _sample(data, num_pictures, seed)
    pages = [sample.pictures[start : start + NUM_COLUMNS * NUM_ROWS] for start in range(0, len(sample.pictures), NUM_COLUMNS * NUM_ROWS)]
    folder.mkdir(parents=True, exist_ok=True)
    heading, colours = _heading(sample, shown(title or folder.absolute().parent.name), seed), colours_of(data.classes)
    written = []
    for number, page in enumerate(pages or [[]], 1):
        path = folder / f"sheet-{number:03d}.jpg"
        _write(path, _sheet(page, f"{heading} · sheet {number} of {max(1, len(pages))}", _counted(sample), colours))
        written.append(path)
    for path in folder.iterdir():
        if (found := _OWN_NAME.fullmatch(path.name)) and int(found[1]) > len(written):
            path.unlink()
    return written


@dataclass
class _Sample:
    """The pictures to show, and what was counted in all of them."""

    pictures: list[LabelledPicture] = field(default_factory=list)
    num_all: int = 0
    num_objects: Counter[str] = field(default_factory=Counter)


def _sample(data: LabelledSet, num_pictures: int, seed: int) -> _Sample:
    """The pictures to show, in their own order, by one pass over all of them."""
    chosen = set(random.Random(seed).sample(range(data.num_pictures), min(num_pictures, data.num_pictures)))  # nosec B311 # a choice to look at
    sample = _Sample()
    for index, picture in enumerate(data.pictures()):
        sample.num_all += 1
        sample.num_objects.update(found.label for found in picture.objects)
        if index in chosen:
            sample.pictures.append(picture)
    return sample


def _heading(sample: _Sample, title: str, seed: int) -> str:
    drawn = f", {len(sample.pictures):,} of them drawn at random (seed {seed})" if len(sample.pictures) < sample.num_all else ""
    return f"{title} · {sample.num_all:,} picture{'' if sample.num_all == 1 else 's'}{drawn}"


def _counted(sample: _Sample) -> str:
    """The objects of all pictures by class, the most frequent first."""
    if not sample.num_objects:
        return "no objects" if sample.num_all else "nothing is labelled yet"
    most = sorted(sample.num_objects.items(), key=lambda item: (-item[1], item[0]))
    rest = most[MAX_CLASSES:]
    more = f" · {len(rest):,} more classes: {sum(count for _, count in rest):,}" if rest else ""
    first = ", ".join(f"{shortened(name)} {count:,}" for name, count in most[:MAX_CLASSES])
    return f"{sum(sample.num_objects.values()):,} objects: {first}{more}"


def _sheet(page: Sequence[LabelledPicture], heading: str, counted: str, colours: Mapping[str, str]) -> Image.Image:
    """One sheet, as high as its pictures need."""
    fonts = Fonts()
    large, small = Lettering(fonts, LETTERS + 4), Lettering(fonts, LETTERS)
    width = NUM_COLUMNS * (CELL[0] + GAP) + GAP
    top = GAP + large.line_height
    lines = small.wrapped(counted, width - 2 * GAP, 3)
    first = top + small.line_height * len(lines) + GAP
    step = CELL[1] + small.line_height * (NUM_LINES + 1) + GAP
    num_rows = -(-len(page) // NUM_COLUMNS)
    sheet = Image.new("RGB", (width, first + num_rows * step + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    large.draw(pen, GAP, GAP, large.wrapped(heading, width - 2 * GAP, 1), INK)
    small.draw(pen, GAP, top, lines, SOFT)
    for index, picture in enumerate(page):
        row, column = divmod(index, NUM_COLUMNS)
        x, y = GAP + column * (CELL[0] + GAP), first + row * step
        cell = _cell(picture, colours, fonts, small)
        pen.rectangle((x, y, x + CELL[0] - 1, y + CELL[1] - 1), fill=EMPTY)
        sheet.paste(cell, (x + (CELL[0] - cell.width) // 2, y + (CELL[1] - cell.height) // 2))
        for number, (line, colour) in enumerate(_captions(picture, small)):
            small.draw(pen, x, y + CELL[1] + 4 + number * small.line_height, [line], colour)
    return sheet


def _cell(picture: LabelledPicture, colours: Mapping[str, str], fonts: Fonts, letters: Lettering) -> Image.Image:
    """A copy of the size of its place with its labels, or the reason why there is none."""
    try:
        copy = read_thumbnail(picture.file, max(CELL))
    except (InvalidImage, OutOfMemory) as error:
        blank = Image.new("RGB", CELL, EMPTY)
        letters.draw(ImageDraw.Draw(blank), GAP, GAP, letters.wrapped(error.message, CELL[0] - 2 * GAP, 8), "#8A1C1C")
        return blank
    copy = ImageOps.contain(copy, CELL, Image.Resampling.LANCZOS)
    scale = (copy.width / picture.size[0], copy.height / picture.size[1])
    marks = list(marks_of(picture.objects, colours, scale))
    largest = sorted(named(marks), key=_size, reverse=True)[:MAX_LABELS]
    paint(copy, marks, place_labels(largest, copy.size, fonts))
    return copy


def _size(mark: Mark) -> float:
    """The longer side of a mark."""
    left, top, right, bottom = mark.box
    return max(right - left, bottom - top)


def _captions(picture: LabelledPicture, letters: Lettering) -> Iterator[tuple[str, str]]:
    """The lines below a picture: its name, and what was found or said."""
    yield _end_of(picture.name, letters), INK
    counts = Counter(found.label for found in picture.objects)
    found = ", ".join(name if count == 1 else f"{count} {name}" for name, count in counts.items())
    said = " · ".join(" ".join(text.split()) for text in picture.texts.values())
    words = " · ".join(part for part in ("val" if picture.split == "val" else "", found, said) if part)
    yield from ((line, SOFT) for line in letters.wrapped(words[:MAX_CHARS] or "nothing found", CELL[0], NUM_LINES))


def _end_of(name: str, letters: Lettering) -> str:
    """The end of a name, which tells pictures of one folder apart, as far as it fits."""
    end = shown(name)
    while letters.width(end) > CELL[0] and len(end) > 2:
        end = "…" + end[2:]
    return letters.wrapped(end, CELL[0], 1)[0]


def _write(path: Path, sheet: Image.Image) -> None:
    """Write a sheet so that the file is always whole."""
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=JPEG_QUALITY)
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(buffer.getvalue())
    os.replace(unfinished, path)
