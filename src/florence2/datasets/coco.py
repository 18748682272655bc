"""COCO detection files: one question about each picture, answered by all its boxes from left to right.

In: the content of a file and its pictures. Out: a ``DataSet``. Exporters write ids as numbers or texts and leave fields out;
what is consistent is taken, what is not is reported with the field's name. A picture with a refused annotation is left out as a whole:
a gap would be taught, and what a model finds there would count as wrong. Knows no folders.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from florence2.datasets.boxes import Box, clip, is_number, number_of, refuse_fractions
from florence2.datasets.detections import Thing, detection_record, question_of
from florence2.datasets.json_files import kind_of
from florence2.datasets.pictures import MOVED, FilePicture, Pictures, Size
from florence2.datasets.record import DataSet, Problem
from florence2.errors import DatasetError, Florence2Error
from florence2.tasks.prompt import shortened

PARTS = ("images", "annotations", "categories")
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]{0,17}))(?:\.0+)?")
_CROWD = {"0": False, "1": True, "false": False, "true": True, "": False}
Id = int | str


@dataclass(frozen=True)
class _Annotation:
    """An annotation whose picture and class are known, and whose box is yet to be compared with the picture."""

    where: str
    label: str
    bbox: Any
    is_crowd: bool


def is_coco(content: Any) -> TypeGuard[dict[str, list[Any]]]:
    """Whether a JSON file's content has the three lists of a COCO detection file."""
    return isinstance(content, dict) and all(isinstance(content.get(part), list) for part in PARTS)


def names_in_coco(content: Mapping[str, list[Any]], count: int) -> list[str]:
    """The names of the first pictures."""
    names = [image.get("file_name") for image in content["images"][:count] if isinstance(image, dict)]
    return [name for name in names if isinstance(name, str) and name]


def read_coco(
    path: Path, content: Mapping[str, list[Any]], pictures: Pictures, prompt: str, limit: int | None, progress: Callable[[int], None] | None
) -> DataSet:
    """The data set that a file holds.

    Args:
        path: the file's, for messages.
        content: what ``is_coco`` says yes to.
        pictures: where its pictures are.
        prompt: ``<OD>``, or ``<OPEN_VOCABULARY_DETECTION>`` for all of the file's classes by name.
        limit: at most so many pictures; None is all.
        progress: called with the number of pictures looked at so far.

    Raises:
        DatasetError: another prompt.
    """
    data = DataSet(str(path))
    classes = _classes(content["categories"])
    question = question_of(prompt, _asked_for(content, classes), "a COCO file")
    annotations, gaps = _annotations(path, content, classes, data.problems)
    twins = _twins(content["images"], pictures)
    for index, image in enumerate(content["images"][:limit]):
        where = f"{path}: image {_id_of(image, index)}"
        try:
            if index in twins:
                raise DatasetError(twins[index])
            key = _needed_id(image, "id")
            path_of_image = pictures.find(_file_name(image))
            size = pictures.size(path_of_image)
            _check_size(image, size)
            notices: Counter[str] = Counter()
            things, crowds, problems = _placed(annotations[key], size, notices)
            data.problems += problems
            if not problems and key not in gaps:
                data.records.append(detection_record(where, FilePicture(path_of_image), size, question, things, crowds))
                data.notices += notices
        except Florence2Error as error:
            data.problems.append(Problem(where, error.message))
        if progress is not None:
            progress(len(pictures))
    data.notices += Counter({MOVED: len(pictures.moved)})
    return data


def _placed(annotations: list[_Annotation], size: Size, notices: Counter[str]) -> tuple[list[Thing], list[Thing], list[Problem]]:
    """Names and boxes, those of crowds, and what is wrong with the others."""
    things: list[Thing] = []
    crowds: list[Thing] = []
    problems = []
    for annotation in annotations:
        box = _box(annotation.bbox, size, notices)
        if isinstance(box, DatasetError):
            problems.append(Problem(annotation.where, box.message))
        else:
            (crowds if annotation.is_crowd else things).append((annotation.label, box))
    return things, crowds, problems


def _box(bbox: Any, size: Size, notices: Counter[str]) -> Box | DatasetError:
    """A box x1, y1, x2, y2, or what is wrong with it."""
    values = [_number(value) for value in bbox] if isinstance(bbox, list) and len(bbox) == 4 else [None]
    x, y, width, height = values if None not in values else (0.0, 0.0, 0.0, 0.0)
    if x is None or y is None or not (width and height and width > 0 and height > 0):
        return DatasetError(f"expected bbox as x, y, width, height in pixels, the last two greater than 0, got {shortened(bbox)}")
    try:
        refuse_fractions([x, y, width, height], size)
        return clip((x, y, x + width, y + height), size, notices)
    except DatasetError as error:
        return error


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return number_of(value)
    return float(value) if is_number(value) else None


def _annotations(
    path: Path, content: Mapping[str, list[Any]], classes: Mapping[Id, str | DatasetError], problems: list[Problem]
) -> tuple[dict[Id, list[_Annotation]], set[Id]]:
    """Annotations by their picture, and the pictures that lack one because it is refused; why is added to the problems."""
    known = {key for image in content["images"] if (key := id_key(image.get("id") if isinstance(image, dict) else None)) is not None}
    found: dict[Id, list[_Annotation]] = defaultdict(list)
    gaps: set[Id] = set()
    for index, entry in enumerate(content["annotations"]):
        where = f"{path}: annotation {_id_of(entry, index)}"
        picture: Id | None = None
        try:
            picture = _needed_id(entry, "image_id")
            if picture not in known:
                raise DatasetError(f"its image_id {shortened(entry['image_id'])} is that of no image")
            label = classes.get(_needed_id(entry, "category_id"))
            if label is None:
                raise DatasetError(f"its category_id {shortened(entry['category_id'])} is that of no category")
            if isinstance(label, DatasetError):
                raise label
            found[picture].append(_Annotation(where, label, entry.get("bbox"), _is_crowd(entry)))
        except DatasetError as error:
            problems.append(Problem(where, error.message))
            if picture is not None:
                gaps.add(picture)
    return found, gaps


def _classes(categories: list[Any]) -> dict[Id, str | DatasetError]:
    """The name of each category, padding removed; or why what belongs to it can't be used."""
    names: dict[Id, list[str]] = defaultdict(list)
    for entry in categories:
        key = id_key(entry.get("id") if isinstance(entry, dict) else None)
        if key is not None:
            name = entry.get("name")
            names[key].append(str(name).strip() if isinstance(name, (int, str)) and not isinstance(name, bool) else "")
    return {key: _one_name(key, list(dict.fromkeys(given))) for key, given in names.items()}


def _one_name(key: Id, names: list[str]) -> str | DatasetError:
    if len(names) > 1:
        return DatasetError(f"its category_id {key} is that of several categories: {', '.join(names)}")
    return names[0] or DatasetError(f"its category {key} has no name")


def _asked_for(content: Mapping[str, list[Any]], classes: Mapping[Id, str | DatasetError]) -> list[str]:
    """The names of the classes, each once.

    A category that groups others (it is their supercategory) and that nothing belongs to is no class: Roboflow's exports begin with one.
    """
    used = {id_key(entry.get("category_id")) for entry in content["annotations"] if isinstance(entry, dict)}
    above: dict[str, set[Id | None]] = defaultdict(set)
    for entry in content["categories"]:
        if isinstance(entry, dict) and isinstance(entry.get("supercategory"), str):
            above[entry["supercategory"].strip()].add(id_key(entry.get("id")))
    named = {key: name for key, name in classes.items() if isinstance(name, str)}
    real = [name for key, name in named.items() if key in used or not above[name] - {key}]
    return list(dict.fromkeys(real or named.values()))


def _twins(images: list[Any], pictures: Pictures) -> dict[int, str]:
    """Which images, by their index in the list, share an id or a file with another one: which annotations are whose can't be known."""
    by_id, by_file = defaultdict(list), defaultdict(list)
    for index, image in enumerate(images):
        if isinstance(image, dict):
            by_id[id_key(image.get("id"))].append(index)
            if isinstance(image.get("file_name"), str):
                by_file[os.path.normpath(pictures.find(image["file_name"]))].append(index)
    by_id.pop(None, None)
    found = dict.fromkeys(_several(by_file), "its file is that of another image too; all boxes of one picture belong to one id")
    return found | dict.fromkeys(_several(by_id), "its id is that of another image too")


def _several(groups: Mapping[Any, list[int]]) -> list[int]:
    return [index for group in groups.values() if len(group) > 1 for index in group]


def _check_size(image: Mapping[str, Any], size: Size) -> None:
    """Boxes of a picture of another size, or of one that was not turned upright, would lie in wrong places."""
    declared = [_whole(image, field) for field in ("width", "height")]
    if any(side is not None and side != real for side, real in zip(declared, size, strict=True)):
        turned = "; its EXIF data turn it, so that boxes must be those of the turned picture" if declared == [size[1], size[0]] else ""
        shown = " x ".join("?" if side is None else str(side) for side in declared)
        raise DatasetError(f"its file has {size[0]} x {size[1]} pixels, and the data set says {shown}{turned}")


def _file_name(image: Mapping[str, Any]) -> str:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise _not_expected("file_name", "a text", image)
    return name


def _is_crowd(annotation: Mapping[str, Any]) -> bool:
    value = annotation.get("iscrowd")
    plain = value.strip().lower() if isinstance(value, str) else str(int(value)) if value in (0, 1) else None
    if value is None:
        return False
    if plain not in _CROWD:
        raise _not_expected("iscrowd", "0 or 1", annotation)
    return _CROWD[plain]


def _whole(entry: Mapping[str, Any], field: str) -> int | None:
    """A whole number, however it is written; None where it is missing."""
    if entry.get(field) is None:
        return None
    number = id_key(entry[field])
    if not isinstance(number, int):
        raise _not_expected(field, "a whole number", entry)
    return number


def _needed_id(entry: Any, field: str) -> Id:
    if not isinstance(entry, dict):
        raise DatasetError(f"expected an object, got {shortened(entry)} ({kind_of(entry)})")
    key = id_key(entry.get(field))
    if key is None:
        raise _not_expected(field, "a whole number or a text", entry)
    return key


def _not_expected(field: str, wanted: str, entry: Mapping[str, Any]) -> DatasetError:
    came = f"{shortened(entry[field])} ({kind_of(entry[field])})" if field in entry else "nothing"
    return DatasetError(f"expected {field} as {wanted}, got {came}")


def id_key(value: Any) -> Id | None:
    """An id as it is compared: 7, 7.0, "7" and "7.0" are the same; None where it can't be one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, int):
        return value
    whole = _WHOLE.fullmatch(value.strip())
    return int(whole.group(1)) if whole else value.strip() or None


def _id_of(entry: Any, index: int) -> str:
    """What an entry is called in messages."""
    named = isinstance(entry, dict) and isinstance(entry.get("id"), (int, float, str))
    return str(entry["id"]) if named else f"number {index + 1} of the list"
