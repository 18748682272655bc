"""YOLO data sets: a line of numbers for each object, in fractions of the picture.

In: a labelled set. Out: ``images/train``, ``labels/train``, the same with ``val``, and ``data.yaml``. A set holds either boxes or outlines,
never both, because readers take the one for the other: outlines where each object has one, unless the options say otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from florence2.datasets.labelled import LabelledSet
from florence2.datasets.writers.entries import Entries, Entry
from florence2.datasets.writers.names import flat_names, with_suffix
from florence2.datasets.writers.objects import WrittenObject, joined_outline
from florence2.datasets.writers.written import Notices, WriteOptions, Written
from florence2.datasets.writers.yaml_text import quoted
from florence2.outlines import corners

NO_OUTLINES = "outlines were left out, because not every object has one and a YOLO set holds either boxes or outlines"
NO_TEXTS = "texts about pictures were left out: a YOLO set has no place for them"
LEFT = "pictures are left where they are, so that only labels are written; YOLO's readers look for each picture beside its labels"
_SMALLEST = 1e-6


def write(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
    """Write a labelled set as a YOLO data set, and return what was written."""
    has_outlines = _all_have_outlines(data) if options.segments is None else options.segments
    entries, flat = Entries(data, folder, options), flat_names(data)
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
    splits: set[str] = set()
    for entry in entries.placed(lambda picture: f"images/{picture.split}/{flat(picture.name)}"):
        split = entry.picture.split
        splits.add(split)
        name = with_suffix(flat(entry.picture.name), ".txt")
        (folder / "labels" / split / name).write_text("".join(_line(thing, entry, has_outlines) for thing in entry.objects), newline="")
        _count_losses(entry, has_outlines, options, entries.notices)
    if "val" not in splits:
        (folder / "images" / "val").rmdir()
        (folder / "labels" / "val").rmdir()
    (folder / "data.yaml").write_text(_description(data.classes, "val" in splits), encoding="utf-8", newline="")
    return entries.written()


def _all_have_outlines(data: LabelledSet) -> bool:
    """Whether there are objects, and each has an outline."""
    found = False
    for picture in data.pictures():
        if not all(thing.polygons for thing in picture.objects):
            return False
        found = found or bool(picture.objects)
    return found


def _count_losses(entry: Entry, has_outlines: bool, options: WriteOptions, notices: Notices) -> None:
    name = entry.picture.name
    if not has_outlines and options.segments is None:
        notices.add(NO_OUTLINES, name, sum(bool(thing.found.polygons) for thing in entry.objects))
    notices.add(NO_TEXTS, name, len(entry.picture.texts))
    if options.images == "leave":
        notices.add(LEFT, name)


def _line(thing: WrittenObject, entry: Entry, has_outlines: bool) -> str:
    """An object's line: its class, then the box's centre and size, or the corners of its outline."""
    width, height = entry.picture.size
    x1, y1, x2, y2 = thing.found.box
    if has_outlines:
        outline = joined_outline(thing.found.polygons) if thing.found.polygons else corners(thing.found.box)
        values = [value / (width, height)[index % 2] for index, value in enumerate(outline)]
    else:
        sides = [max((x2 - x1) / width, _SMALLEST), max((y2 - y1) / height, _SMALLEST)]
        values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, *sides]
    return " ".join([str(thing.class_id), *_numbers(values)]) + "\n"


def _numbers(values: Sequence[float]) -> list[str]:
    return [f"{min(max(value, 0.0), 1.0):.6f}" for value in values]


def _description(classes: Sequence[str], has_val: bool) -> str:
    """The content of ``data.yaml``; folders are relative to it, so that the data set may be moved."""
    names = "".join(f"\n  {number}: {quoted(name)}" for number, name in enumerate(classes)) or " {}"
    val = "images/val" if has_val else "images/train  # nothing was held out"
    return f"train: images/train\nval: {val}\n\nnc: {len(classes)}\nnames:{names}\n"
