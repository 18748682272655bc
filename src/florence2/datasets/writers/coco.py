"""COCO files: boxes and outlines, and captions in a file of their own, for each part of the data set.

In: a labelled set. Out: ``train/_annotations.coco.json`` and ``valid/_annotations.coco.json`` with their pictures beside them, as Roboflow
exports them; texts about whole pictures in ``_captions.coco.json``, which has the form of COCO's caption files. Ids begin with 1.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from florence2.datasets.labelled import LabelledSet
from florence2.datasets.writers.entries import Entries, Entry, in_split
from florence2.datasets.writers.json_writing import JsonList, write_object
from florence2.datasets.writers.objects import WrittenObject
from florence2.datasets.writers.written import WriteOptions, Written
from florence2.interchange.coco import shape_fields

FILE, CAPTIONS_FILE = "_annotations.coco.json", "_captions.coco.json"
_FOLDERS = {"train": "train", "val": "valid"}


class _Part:
    """The files of one part of a data set."""

    def __init__(self, stack: ExitStack, folder: Path, options: WriteOptions) -> None:
        self._options = options
        self.images, self.annotations, self.captions = (stack.enter_context(closing(JsonList(folder))) for _ in range(3))

    def add(self, entry: Entry, folder: str) -> None:
        """Write a picture and what belongs to it."""
        width, height = entry.picture.size
        number = self.images.num_items + 1
        file_name = entry.file.removeprefix(f"{folder}/")
        image = {"id": number, "file_name": file_name, "width": width, "height": height}
        self.images.append(image | ({"where": entry.picture.where} if entry.picture.where else {}))
        for thing in entry.objects:
            self.annotations.append({"id": self.annotations.num_items + 1, "image_id": number, **_annotation(thing, self._options)})
        for prompt, text in entry.picture.texts.items():
            self.captions.append({"id": self.captions.num_items + 1, "image_id": number, "caption": text, "prompt": prompt})


def write(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
    """Write a labelled set as COCO files, and return what was written."""
    entries = Entries(data, folder, options)
    with ExitStack() as stack:
        parts = {"train": _Part(stack, folder, options)}
        for entry in entries.placed(in_split(**_FOLDERS)):
            split = entry.picture.split
            if split not in parts:
                parts[split] = _Part(stack, folder, options)
            parts[split].add(entry, _FOLDERS[split])
        for split, part in parts.items():
            _write_part(part, folder / _FOLDERS[split], data)
    return entries.written()


def _write_part(part: _Part, folder: Path, data: LabelledSet) -> None:
    folder.mkdir(exist_ok=True)
    info = {"description": "labelled by florence2", "version": "1.0", **data.info}
    categories = [{"id": number, "name": name, "supercategory": "none"} for number, name in enumerate(data.classes, start=1)]
    about = {"info": info, "licenses": [], "images": part.images}
    write_object(folder / FILE, {**about, "categories": categories, "annotations": part.annotations})
    if part.captions.num_items:
        write_object(folder / CAPTIONS_FILE, {**about, "annotations": part.captions})


def _annotation(thing: WrittenObject, options: WriteOptions) -> dict[str, Any]:
    """An annotation without its ids."""
    shape = shape_fields(thing.found.box, thing.found.polygons if options.segments is not False else ())
    fields = {"category_id": thing.class_id + 1, **shape}
    if options.scores and thing.found.score is not None:
        fields["score"] = round(thing.found.score, 6)
    return fields | ({"text": thing.found.text} if thing.found.text else {})
