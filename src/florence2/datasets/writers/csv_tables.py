"""CSV tables for spreadsheets: one of the pictures with the texts about them, one of the objects.

In: a labelled set. Out: ``captions.csv`` with a row for each picture and a column for each prompt, and ``objects.csv`` with a row for each
object. UTF-8 with a byte order mark, without which Excel reads it as another encoding. A text that a spreadsheet would run as a formula has
an apostrophe before it. Pictures are named by their paths, and stay where they are.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from florence2.datasets.labelled import LabelledSet
from florence2.datasets.writers.entries import Entries, Entry
from florence2.datasets.writers.json_writing import to_json
from florence2.datasets.writers.objects import WrittenObject
from florence2.datasets.writers.written import Notices, WriteOptions, Written

QUOTED = "texts that a spreadsheet would run as a formula have an apostrophe before them"
_PICTURE = ("name", "file", "where", "split", "width", "height")
_OBJECT = ("name", "split", "class_id", "label", "x1", "y1", "x2", "y2", "score", "text", "task", "polygons")
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[-+]?[0-9]+([.,][0-9]+)*\s*%?")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


def write(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
    """Write a labelled set as tables, and return what was written."""
    entries = Entries(data, folder, options)
    prompts = list(dict.fromkeys(prompt for picture in data.pictures() for prompt in picture.texts))
    with _new(folder / "captions.csv") as captions, _new(folder / "objects.csv") as objects:
        pictures_table, objects_table = csv.writer(captions), csv.writer(objects)
        pictures_table.writerow([*_PICTURE, *(_cell(prompt, entries.notices, "the names of columns") for prompt in prompts)])
        objects_table.writerow(_OBJECT)
        for entry in entries.by(lambda picture: str(picture.file)):
            pictures_table.writerow(_safe(_row(entry, prompts), entry, entries.notices))
            objects_table.writerows(_safe(_object(thing, entry, options), entry, entries.notices) for thing in entry.objects)
    return entries.written()


def _new(path: Path) -> Any:
    return path.open("w", encoding="utf-8-sig", newline="")


def _row(entry: Entry, prompts: list[str]) -> list[Any]:
    picture = entry.picture
    return [picture.name, entry.file, picture.where, picture.split, *picture.size, *(picture.texts.get(prompt, "") for prompt in prompts)]


def _object(thing: WrittenObject, entry: Entry, options: WriteOptions) -> list[Any]:
    found = thing.found
    score = "" if found.score is None or not options.scores else round(found.score, 6)
    outlines = to_json([list(outline) for outline in found.polygons]) if found.polygons and options.segments is not False else ""
    about = [entry.picture.name, entry.picture.split, thing.class_id, found.label]
    return [*about, *found.box, score, found.text, found.task, outlines]


def _safe(row: list[Any], entry: Entry, notices: Notices) -> list[Any]:
    return [_cell(value, notices, entry.picture.name) if isinstance(value, str) else value for value in row]


def _cell(text: str, notices: Notices, where: str) -> str:
    """A text that spreadsheets show as it is."""
    text = _CONTROL.sub("\ufffd", text)
    if not _FORMULA.match(text) or _NUMBER.fullmatch(text):
        return text
    notices.add(QUOTED, where)
    return f"'{text}"
