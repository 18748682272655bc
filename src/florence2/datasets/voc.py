"""Pascal VOC: an XML file for each picture, with the names and boxes of its objects.

In: a folder in one of the layouts of exporters: ``Annotations`` beside ``JPEGImages``, or files beside their pictures. Out: a
``DataSet``, one question about each picture. Boxes are counted from 1 and hold their last row and column. A picture with a refused
object is left out as a whole, as in COCO files.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from florence2.datasets.boxes import clip, number_of
from florence2.datasets.detections import DETECTION, Thing, detection_record, question_of
from florence2.datasets.part_names import WHOLE, part_of_folder
from florence2.datasets.pictures import FilePicture, Pictures, Size
from florence2.datasets.record import DataSet, Problem
from florence2.datasets.text_files import bytes_of, text_of
from florence2.errors import DatasetError, Florence2Error
from florence2.image_files import PICTURE_NAME
from florence2.tasks.prompt import shortened

_LABELS, _LISTS = ("annotations", "labels"), ("ImageSets", "Main")
_PICTURES = ("JPEGImages", "images", "Images")
_MOST_BYTES, _MOST_LIST_BYTES = 16 << 20, 256 << 20
_FLAG = re.compile(r"\s+-?[01]$")  # behind a name in the lists of a class
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocPart:
    """One part of a Pascal VOC data set.

    Attributes:
        folder: holds the XML files.
        pictures: the folder of the pictures; None is beside the XML files.
        listed: a file that names the pictures of the part, a line each; None is all in the folder.
    """

    folder: Path
    pictures: Path | None = None
    listed: Path | None = None

    def __str__(self) -> str:
        return str(self.listed or self.folder)


def voc_parts(folder: Path) -> dict[str, VocPart]:
    """The parts of a Pascal VOC data set, by their names; nothing where a folder holds none."""
    found: dict[str, VocPart] = {}
    for inner in _folders(folder):
        part = part_of_folder(inner.name)
        if part is not None and (alone := _part_in(inner)) is not None:
            found[part] = alone
    alone = None if found else _part_in(folder)
    if alone is None:
        return found
    lists = {part: file for file in _lists(folder) if (part := part_of_folder(file.stem))}
    return {part: VocPart(alone.folder, alone.pictures, file) for part, file in lists.items()} or {WHOLE: alone}


def read_voc(part: VocPart, prompt: str, limit: int | None, progress: Callable[[int], None] | None, images: Path | None = None) -> DataSet:
    """The data set that a part holds.

    Args:
        part: what to read.
        prompt: ``<OD>``, or ``<OPEN_VOCABULARY_DETECTION>`` for all names in the part.
        limit: at most so many pictures; None is all.
        progress: called with the number of pictures looked at so far.
        images: the folder of the pictures; None is where the data set has them.

    Raises:
        DatasetError: another prompt, or a list that can't be read.
    """
    data, pictures = DataSet(str(part)), Pictures(images or part.pictures or part.folder)
    files, own = _files(part), _by_stem(pictures.folder)
    question = question_of(prompt, [] if prompt == DETECTION else sorted(_all_names(files)), "a Pascal VOC data set")
    for path in files[:limit]:
        try:
            tree = _tree(path)
            if isinstance(tree, DatasetError):
                raise tree
            _add(data, path, tree, _picture(path, tree, pictures, own), pictures, question)
        except Florence2Error as error:
            data.problems.append(Problem(str(path), error.message.removeprefix(f"{path} ")))
        if progress is not None:
            progress(len(pictures))
    return data


def _add(data: DataSet, path: Path, tree: ElementTree.Element, picture: Path, pictures: Pictures, question: str) -> None:
    """Add a picture's record, or what is wrong with its objects."""
    size, notices = pictures.size(picture), Counter[str]()
    _check_size(tree, size)
    things: list[Thing] = []
    problems: list[Problem] = []
    for number, entry in enumerate(tree.iter("object"), start=1):
        try:
            things.append(_thing(entry, size, notices))
        except DatasetError as error:
            problems.append(Problem(f"{path}: object {number}", error.message))
    data.problems += problems
    if not problems:
        data.records.append(detection_record(str(path), FilePicture(picture), size, question, things))
        data.notices += notices


def _thing(entry: ElementTree.Element, size: Size, notices: Counter[str]) -> Thing:
    """An object's name and its box in pixels, counted from 0."""
    name = _text(entry, "name")
    values = [number_of(_text(entry, f"bndbox/{side}")) for side in _SIDES]
    x1, y1, x2, y2 = (value if value is not None else -1.0 for value in values)
    if not name:
        raise DatasetError("it has no name")
    if None in values or not (x1 <= x2 and y1 <= y2):
        given = ", ".join(_text(entry, f"bndbox/{side}") or "nothing" for side in _SIDES)
        raise DatasetError(
            f"expected bndbox with xmin, ymin, xmax and ymax in pixels, the first two the smaller ones, got {shortened(given)}"
        )
    # Some tools count from 0, so that the first pixel may be 0, too.
    return name, clip((max(x1 - 1, min(x1, 0.0)), max(y1 - 1, min(y1, 0.0)), x2, y2), size, notices)


def _picture(path: Path, tree: ElementTree.Element, pictures: Pictures, own: Mapping[str, str]) -> Path:
    """The picture of an XML file: the one with its own name, or else the one that it names, which is often a name from before."""
    named = _text(tree, "filename")
    name = own.get(unicodedata.normalize("NFC", path.stem), named or path.stem)
    found = pictures.find(name)
    if not os.path.isfile(found):
        raise DatasetError(f"its image {shortened(name)} is not in {pictures.folder}")
    return found


def _by_stem(folder: Path) -> dict[str, str]:
    """The names of the pictures in a folder, by what they are without their suffix."""
    names = [path.name for path in _entries(folder, "") if PICTURE_NAME.search(path.name)]
    return {unicodedata.normalize("NFC", Path(name).stem): name for name in names}


def _check_size(tree: ElementTree.Element, size: Size) -> None:
    """Boxes of a picture of another size, or of one that was not turned upright, would lie in wrong places."""
    declared = [number_of(_text(tree, f"size/{side}")) for side in ("width", "height")]
    if any(side and side != real for side, real in zip(declared, size, strict=True)):
        shown = " x ".join("?" if side is None else f"{side:g}" for side in declared)
        raise DatasetError(f"its image has {size[0]} x {size[1]} pixels, upright, and the file says {shown}")


def _tree(path: Path) -> ElementTree.Element | DatasetError:
    """What an XML file holds, or what is wrong with it."""
    try:
        content = bytes_of(path, _MOST_BYTES)
        plain = content.replace(b"\0", b"")  # UTF-16 is read too
        if b"<!ENTITY" in plain or b"<!DOCTYPE" in plain:
            return DatasetError("it defines entities, which are not read")
        tree = ElementTree.fromstring(content)  # nosec B314 # no entities in it, and a bound on its length
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        return error if isinstance(error, DatasetError) else DatasetError(f"it is no XML ({error})")
    return tree if tree.tag == "annotation" else DatasetError(f"it is no annotation of Pascal VOC: it begins with {shortened(tree.tag)}")


def _all_names(files: Sequence[Path]) -> set[str]:
    """The names of the objects in all files that can be read."""
    trees = (_tree(path) for path in files)
    return {name for tree in trees if not isinstance(tree, DatasetError) for entry in tree.iter("object") if (name := _text(entry, "name"))}


def _text(entry: ElementTree.Element, path: str) -> str:
    return (entry.findtext(path) or "").strip()


def _part_in(folder: Path) -> VocPart | None:
    """The XML files of a folder, beside their pictures or in a folder of their own."""
    inner = {entry.name.lower(): entry for entry in _folders(folder)}
    for name in ("", *_LABELS):
        place = folder if not name else inner.get(name)
        if place is not None and _has_annotations(place):
            pictures = next((folder / one for one in _PICTURES if (folder / one).is_dir()), None)
            return VocPart(place, pictures or (folder if name else None))
    return None


def _has_annotations(folder: Path) -> bool:
    first = next(iter(_entries(folder, ".xml")), None)
    if first is None:
        return False
    tree = _tree(first)
    return not isinstance(tree, DatasetError)


def _files(part: VocPart) -> Sequence[Path]:
    if part.listed is None:
        return _entries(part.folder, ".xml")
    names = dict.fromkeys(line.strip() for line in text_of(part.listed, _MOST_LIST_BYTES).splitlines() if line.strip())
    return [file if (file := part.folder / f"{name}.xml").is_file() else part.folder / f"{_FLAG.sub('', name)}.xml" for name in names]


def _lists(folder: Path) -> Sequence[Path]:
    return _entries(folder.joinpath(*_LISTS), ".txt")


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _entries(folder: Path, suffix: str) -> list[Path]:
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.lower().endswith(suffix) and not name.startswith("."))
    except OSError:
        return []
