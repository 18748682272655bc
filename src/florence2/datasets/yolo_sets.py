"""YOLO data sets as exporters leave them: which pictures belong to which part, and what the numbers of classes mean.

In: a ``data.yaml``, or a folder that holds one or a list of class names. Out: a ``YoloPart`` for each part. Paths in a ``data.yaml`` are
often those of the machine or of the folder that it was written for: they are looked for where they lead, and then beside the file. Opens
no picture and no label.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from florence2.datasets.part_names import TRAIN, WHOLE, part_of_folder
from florence2.datasets.text_files import text_of
from florence2.errors import DatasetError
from florence2.extras import requires
from florence2.image_files import PICTURE_NAME
from florence2.tasks.prompt import shortened

_DESCRIPTIONS = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
CLASS_FILES = ("classes.txt", "obj.names", "_darknet.labels", "classes.names")
LABEL_FOLDERS = ("labels", "annotations")
_ENDINGS = (".yaml", ".yml")
_NOTHING = ("", "~", "null", "none")
_MOST_BYTES = 1 << 20
_NUM_FOLDERS_ABOVE = 2
_DIGITS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class YoloPart:
    """One part of a YOLO data set.

    Attributes:
        path: the file that names the classes.
        name: the part's; empty where the data set has no parts.
        classes: their names by number, without white space around them.
        sources: folders of pictures and lists of them (``.txt``).
        root: the folder that names in lists are relative to, where they are not beside the list.
        num_keypoint_values: how many numbers behind each box belong to its keypoints.
    """

    path: Path
    name: str
    classes: Mapping[int, str]
    sources: tuple[Path, ...]
    root: Path
    num_keypoint_values: int = 0

    def __str__(self) -> str:
        if self.path.suffix.lower() not in _ENDINGS:
            return ", ".join(map(str, self.sources))
        return f"{self.path} ({self.name})" if self.name else str(self.path)


@dataclass(frozen=True)
class YoloSet:
    """A YOLO data set.

    Attributes:
        parts: by their names.
        absent: what its ``data.yaml`` names and is not there, or a folder without a picture.
    """

    parts: Mapping[str, YoloPart]
    absent: tuple[str, ...] = ()


def is_description(path: Path) -> bool:
    """Whether a path is named as a ``data.yaml`` may be."""
    return path.suffix.lower() in _ENDINGS


def yolo_set(path: Path) -> YoloSet | None:
    """The data set that a ``data.yaml`` describes, or a folder that holds one or a file with the names of classes; None for all else.

    Raises:
        DatasetError: what is wrong with the description.
    """
    if is_description(path):
        return _described(path)
    if (description := _description(path)) is not None:
        return _described(description)
    names = _class_file(path)
    if names is None:
        return _set_of_folders(path)
    if not _has_labels(path):
        return None
    parts = _parts_of_folders(path) or _by_part(file for file in _files(path) if is_label(file.name)) or {WHOLE: (path,)}
    classes = _listed_classes(names)
    return YoloSet({name: YoloPart(names, name, classes, sources, path) for name, sources in parts.items()})


def part_below(folder: Path) -> YoloPart | None:
    """A folder that is a part of a data set whose classes are named in a folder above, such as ``export/train``; None where it is none."""
    folder = Path(os.path.abspath(folder))
    if not _has_labels(folder) and "images" not in map(str.lower, folder.parts[-_NUM_FOLDERS_ABOVE:]):
        return None
    for above in list(folder.parents)[:_NUM_FOLDERS_ABOVE]:
        found = yolo_set(above)
        for part in found.parts.values() if found else ():
            return YoloPart(part.path, WHOLE, part.classes, (folder,), part.root, part.num_keypoint_values)
    return None


def _set_of_folders(folder: Path) -> YoloSet | None:
    """The data set whose parts each name their classes, as darknet's; None where there is none."""
    named = [entry for entry in _folders(folder) if part_of_folder(entry.name) and _class_file(entry) is not None and _has_labels(entry)]
    parts = {}
    for name, sources in _by_part(named).items():
        names = _class_file(sources[0])
        if names is not None:
            parts[name] = YoloPart(names, name, _listed_classes(names), sources, sources[0])
    return YoloSet(parts) if parts else None


def has_pictures(folder: Path) -> bool:
    """Whether there is a picture in a folder or below it."""
    return any(PICTURE_NAME.search(name) for _, _, names in os.walk(folder, followlinks=False) for name in names)


def unnamed_labels(folder: Path) -> Path | None:
    """A folder of labels in a folder that does not name their classes, for the message; None where there is none."""
    for place in (folder, *_folders(folder)):
        for inner in _folders(place):
            if inner.name.lower() in LABEL_FOLDERS and _has_labels(inner):
                return inner
    return None


def _description(folder: Path) -> Path | None:
    """The description in a folder: a file with a usual name, or the only YAML file that has names."""
    usual = [folder / name for name in _DESCRIPTIONS if (folder / name).is_file()]
    return usual[0] if usual else next((file for file in _files(folder) if is_description(file) and _has_names(file)), None)


def _has_names(path: Path) -> bool:
    try:
        return "names" in _content(path)
    except DatasetError:
        return False


def _content(path: Path) -> Mapping[Any, Any]:
    with requires("train", f"reading {path.name}"):
        from florence2.datasets.yaml_files import mapping_of
    return mapping_of(path)


def _described(path: Path) -> YoloSet:
    """The data set that a file describes."""
    content = _content(path)
    if "names" not in content:
        raise DatasetError(f"{path} has no names: expected the names of the classes, as a list or by their numbers")
    classes, num_keypoint_values = _named_classes(path, content), _num_keypoint_values(path, content)
    roots = _roots(path.parent, _text(path, "path", content.get("path")))
    sources, absent = _sources(path, content, roots)
    if not sources:
        sources = _parts_of_folders(path.parent) or ({} if absent else {WHOLE: (path.parent,)})
    if not sources:
        raise DatasetError(f"{path} names {' and '.join(absent)}, which is not there or empty, nor is a train, valid or test beside it")
    parts = {name: YoloPart(path, name, classes, found, roots[0], num_keypoint_values) for name, found in sources.items()}
    return YoloSet(parts, tuple(absent))


def _sources(path: Path, content: Mapping[Any, Any], roots: Sequence[Path]) -> tuple[dict[str, tuple[Path, ...]], list[str]]:
    """Folders and lists of each part, and those that are not there."""
    sources: dict[str, tuple[Path, ...]] = {}
    absent: list[str] = []
    for key, value in content.items():
        part = part_of_folder(key) if isinstance(key, str) else None
        names = value if isinstance(value, list) else [value]
        texts = [text for name in names if (text := _text(path, key, name))] if part else []
        found = {text: find_below(roots, text) for text in texts}
        missing = [text for text, source in found.items() if source is None or not (source.is_file() or has_pictures(source))]
        absent += missing
        if part is not None and texts and not missing:
            sources[part] = tuple(dict.fromkeys(source for source in found.values() if source is not None))
    return sources, absent


def find_below(roots: Sequence[Path], name: str) -> Path | None:
    """What a path means that may have been written for another folder or machine; None where there is nothing.

    ``../train/images`` is first looked for without the dots, as Roboflow means it; at last the last parts of a path are looked for.

    Args:
        roots: the folders that it may be relative to, the likeliest first.
        name: the path as it is written.
    """
    name = name.replace("\\", "/")
    parts = [part for part in PurePosixPath(name).parts if part not in ("..", ".", "/")]
    inside = "/".join(parts)
    likely = [inside, name] if name.startswith("../") else [name, inside]
    tails = ["/".join(parts[start:]) for start in range(1, len(parts)) if start < len(parts) - 1 or part_of_folder(parts[start])]
    for wanted in (*likely, *tails):
        for root in roots:
            if wanted and os.path.exists(root / wanted):  # which holds of no name that is too long
                return root / wanted
    return None


def _roots(beside: Path, path: str) -> list[Path]:
    """The folders that a description's paths are relative to: the one that it names, if it is there, and its own."""
    named = [folder for folder in (beside / path, Path(path)) if path and folder.is_dir()]
    inner = find_below([beside], path) if path and not named else None
    return list(dict.fromkeys([*named, *([inner] if inner is not None and inner.is_dir() else []), beside]))


def _text(path: Path, key: Any, value: Any) -> str:
    """A value that is a path; empty where there is none."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING):
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise DatasetError(f"{path}: expected {key} as a folder, a list of folders, or a .txt list of images, got {shortened(value)}")
    return value.strip()


def _named_classes(path: Path, content: Mapping[Any, Any]) -> dict[int, str]:
    """The names of a description's classes by number."""
    given = content["names"]
    if not isinstance(given, (dict, list)) or not given:
        raise DatasetError(f"{path}: expected names as a list or by the numbers of the classes, got {shortened(given)}")
    names: dict[int, str] = {}
    for key, name in given.items() if isinstance(given, dict) else enumerate(given):
        number = key if isinstance(key, int) else _whole(key)
        if number is None:
            raise DatasetError(f"{path}: expected names by the numbers of their classes, got the key {shortened(key)}")
        if not isinstance(name, str):
            raise DatasetError(f"{path}: expected the name of class {number} as a text, got {shortened(name)}")
        names[number] = name.strip()
    count = _whole(content.get("nc"))
    if count is not None and count != len(names):
        raise DatasetError(f"{path} says that there are {count} classes (nc) and names {len(names)}; correct the one that is wrong")
    return names


def _num_keypoint_values(path: Path, content: Mapping[Any, Any]) -> int:
    """How many numbers of a label line are keypoints: ``kpt_shape``, their number and the length of each."""
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    sides = [_whole(one) for one in shape] if isinstance(shape, list) else []
    if len(sides) != 2 or sides[0] is None or sides[1] is None:
        raise DatasetError(f"{path}: expected kpt_shape as two whole numbers, such as [17, 3], got {shortened(shape)}")
    return sides[0] * sides[1]


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else None


def _class_file(folder: Path) -> Path | None:
    """The file that lists the names of classes, a line each; some tools put it beside the labels."""
    places = [folder, *(entry for entry in _folders(folder) if entry.name.lower() in LABEL_FOLDERS)]
    return next((file for place in places for name in CLASS_FILES if (file := place / name).is_file()), None)


def _listed_classes(path: Path) -> dict[int, str]:
    names = [line.strip() for line in text_of(path, _MOST_BYTES).splitlines()]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise DatasetError(f"{path} names no classes; expected a name on each line")
    return dict(enumerate(names))


def is_label(name: str) -> bool:
    """Whether a file of that name can hold labels: no names of classes, notes, or confidences, which autodistill puts beside them."""
    return name.lower().endswith(".txt") and name not in CLASS_FILES and not name.startswith(("README", "confidence-", "."))


def _has_labels(folder: Path, depth: int = 3) -> bool:
    """Whether there are labels in a folder, or in folders below it to some depth."""
    if any(is_label(file.name) for file in _files(folder)):
        return True
    return depth > 0 and any(_has_labels(inner, depth - 1) for inner in _folders(folder))


def _parts_of_folders(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The parts that lie in folders of their own: ``train/images`` or ``images/train``."""
    images = [entry for entry in _folders(folder) if entry.name.lower() == "images"]
    for above in (folder, *images):
        if found := _by_part(_folders(above)):
            return found
    return {}


def _by_part(paths: Iterable[Path]) -> dict[str, tuple[Path, ...]]:
    """The paths whose names are those of parts."""
    found: dict[str, tuple[Path, ...]] = {}
    for path in paths:
        if (part := part_of_folder(path.stem)) is not None:
            if part in found:
                raise DatasetError(f"{found[part][0]} and {path} are both the part {part}; a data.yaml says which one is meant")
            found[part] = (path,)
    return found


def _files(folder: Path) -> list[Path]:
    return _entries(folder, is_folder=False)


def _folders(folder: Path) -> list[Path]:
    return _entries(folder, is_folder=True)


def _entries(folder: Path, *, is_folder: bool) -> list[Path]:
    """What is in a folder, sorted, without what is hidden; nothing where it can't be read."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if entry.is_dir() == is_folder and not entry.name.startswith(".")]
    except OSError:
        return []
    return [folder / name for name in sorted(found)]


def is_train(part: YoloPart, parts: Mapping[str, YoloPart]) -> bool:
    """Whether a part has the pictures that are learnt from, as where nothing was held out."""
    return TRAIN in parts and part.sources == parts[TRAIN].sources
