"""Entries that name a picture and what is said of it, without a question: ``metadata.jsonl``, tables, and COCO's caption files.

In: the fields of an entry, as Hugging Face's ``imagefolder`` and trainers of image models have them (``file_name`` with ``text`` or
``caption``, or with boxes in ``objects``), or a caption file. Out: the same as questions with their answers. What is a question already
stays as it is.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from florence2.datasets.boxes import is_number
from florence2.datasets.coco import id_key
from florence2.datasets.text_files import text_of
from florence2.errors import DatasetError
from florence2.tasks.prompt import shortened

DETECTION, CAPTION = "<OD>", "<CAPTION>"
_PICTURE = ("image", "file_name", "filename", "image_path", "file")
_WORDS = ("caption", "text")
_NAMES = ("categories", "category", "labels", "label")
_QUESTIONS = ("prompt", "prefix", "answer", "suffix")
_MOST_BYTES = 1 << 30


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row of a table stands, and its fields; the first row names them, empty fields are left out.

    Raises:
        DatasetError: it can't be read, or a row has more fields than there are names.
    """
    lines = text_of(path, _MOST_BYTES).splitlines(keepends=True)
    reader = csv.reader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        names = [name.strip() for name in next(reader, [])]
        for row in reader:
            if len(row) > len(names):
                raise DatasetError(
                    f"{path}:{reader.line_num} has {len(row)} fields, and the first line names {len(names)}: put quotes around texts"
                )
            yield f"{path}:{reader.line_num}", {name: value for name, value in zip(names, row, strict=False) if value.strip()}
    except csv.Error as error:
        raise DatasetError(f"{path}:{reader.line_num} is no row of a table: {error}") from None


def is_coco_captions(content: Any) -> TypeGuard[dict[str, list[Any]]]:
    """Whether a JSON file's content is that of a COCO caption file: its annotations are captions, and no boxes."""
    images, annotations = (content.get(name) if isinstance(content, dict) else None for name in ("images", "annotations"))
    if not isinstance(images, list) or not isinstance(annotations, list) or not annotations:
        return False
    first = annotations[0]
    return isinstance(first, dict) and isinstance(first.get("caption"), str) and first.get("bbox") is None


def entries_of_captions(path: Path, content: Mapping[str, list[Any]], prompt: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Where each picture of a caption file stands, and its captions: references for one question, or for each ``prompt`` that they name."""
    captions: dict[int | str | None, dict[str, list[Any]]] = {}
    for entry in content["annotations"]:
        if isinstance(entry, dict):
            asked = entry.get("prompt") or (CAPTION if prompt == DETECTION else prompt)
            captions.setdefault(id_key(entry.get("image_id")), {}).setdefault(str(asked), []).append(entry.get("caption"))
    for index, image in enumerate(content["images"]):
        fields = image if isinstance(image, dict) else {}
        for asked, answers in captions.get(id_key(fields.get("id")), {}).items():
            question = {"image": picture_name(fields), "prompt": asked, "answer": answers}
            yield f"{path}: image {fields.get('id', index + 1)}", lambda question=question: question


def as_question(fields: Any, prompt: str) -> Any:
    """An entry as a question with its answer.

    Args:
        fields: the entry's; what is no object, and an entry that has a prompt, an answer or nothing to make them of, is returned as it is.
        prompt: what is asked; ``<OD>`` becomes ``<CAPTION>`` where the entry holds words.

    Raises:
        DatasetError: boxes without names, or of another form.
    """
    if not isinstance(fields, dict) or any(fields.get(name) is not None for name in _QUESTIONS):
        return fields
    picture = next((fields[name] for name in _PICTURE if fields.get(name) is not None), None)
    objects = fields.get("objects")
    if isinstance(objects, dict):
        return {"image": picture, "prompt": prompt, "objects": _things(objects)}
    words = next((fields[name] for name in _WORDS if fields.get(name) is not None), None)
    if words is None:
        return fields
    return {"image": picture, "prompt": CAPTION if prompt == DETECTION else prompt, "answer": words}


def picture_name(fields: Any) -> str | None:
    """The name of an entry's picture; None where it has none."""
    found = next((fields[name] for name in _PICTURE if fields.get(name) is not None), None) if isinstance(fields, dict) else None
    return found if isinstance(found, str) else None


def _things(objects: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Labels with boxes x1, y1, x2, y2 of columns with boxes x, y, width, height."""
    boxes = objects.get("bbox", objects.get("boxes"))
    names = next((objects[name] for name in _NAMES if objects.get(name) is not None), None)
    if not isinstance(boxes, list) or not isinstance(names, list) or len(boxes) != len(names):
        raise DatasetError(f"expected objects with bbox and categories, two lists of one length, got {shortened(objects)}")
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise DatasetError(f"expected categories as names of classes, got {shortened(wrong[0])}; numbers do not say what they stand for")
    return [{"label": name, "box": _corners(box)} for name, box in zip(names, boxes, strict=True)]


def _corners(box: Any) -> list[float]:
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise DatasetError(f"expected bbox as x, y, width, height in pixels, got {shortened(box)}")
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]
