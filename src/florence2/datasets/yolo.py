"""Labels of YOLO data sets: a text file for each picture, a line of numbers for each object, in fractions of the picture.

In: a part of a data set. Out: a ``DataSet``, one question about each picture. Boxes, boxes with confidences or keypoints behind them,
outlines and turned boxes are read as the boxes around them. A picture without a label file has no objects; a picture with a refused line is
left out as a whole: a gap would be taught, and what a model finds there would count as wrong.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from florence2.datasets.boxes import Box, clip, number_of
from florence2.datasets.detections import Thing, detection_record, question_of
from florence2.datasets.pictures import FilePicture, Pictures, Size
from florence2.datasets.record import DataSet, Problem
from florence2.datasets.text_files import text_of
from florence2.datasets.yolo_sets import LABEL_FOLDERS, YoloPart, find_below, is_label
from florence2.errors import DatasetError, Florence2Error
from florence2.image_files import PICTURE_NAME
from florence2.inputs.folders import walk
from florence2.tasks.prompt import shortened

UNLABELLED = "images without a label file, which were taken as images without objects"
WITHOUT_PICTURE = "label files without an image, which were left out"
REPEATED = "lines that repeat another one of their file and were left out"
_MOST_LABEL_BYTES, _MOST_LIST_BYTES = 16 << 20, 256 << 20
_FRACTION = 2.0  # numbers beyond are pixels, not fractions that reach out of the picture
_ROUNDING = 1e-5  # of fractions that are written with five digits or more


class _Labels:
    """Label files by their pictures, each folder listed once.

    Args:
        images: the folder that holds the pictures, where they do not lie beside the labels.
        labels: the folder with the labels of that one.
    """

    def __init__(self, images: Path | None = None, labels: Path = Path()) -> None:
        self._images, self._labels = images, labels
        self._folders: dict[str, dict[str, Path]] = {}
        self.used: set[Path] = set()

    def folder_of(self, picture: Path) -> Path:
        """The folder in which a picture's label file is looked for."""
        if self._images is None:
            return label_folder(picture.parent)
        return self._labels / picture.parent.relative_to(self._images)

    def of(self, picture: Path) -> Path | None:
        """The label file of a picture; None where it has none. Its name is that of the picture in either Unicode form."""
        folder = str(picture.parent)
        if folder not in self._folders:
            place = self.folder_of(picture)
            names = [name for name in _names_in(place) if is_label(name)]
            self._folders[folder] = {unicodedata.normalize("NFC", name[:-4]): place / name for name in names}
        found = self._folders[folder].get(unicodedata.normalize("NFC", picture.stem))
        if found is not None:
            self.used.add(found)
        return found

    @property
    def num_unused(self) -> int:
        """How many files in the folders that were looked into belong to no picture."""
        return len({path for found in self._folders.values() for path in found.values()} - self.used)


def label_folder(folder: Path) -> Path:
    """The folder with the labels of the pictures in a folder.

    For ``…/images/…`` it is ``…/labels/…`` (or ``annotations``); else ``labels`` within the folder; else the folder, as where labels lie
    beside their pictures.
    """
    parts = folder.parts
    usual = []
    for index in range(len(parts) - 1, -1, -1):
        if parts[index].lower() == "images":
            above = Path(*parts[:index])
            beside = {name.lower(): name for name in _names_in(above)}
            usual += [above.joinpath(beside.get(name, name), *parts[index + 1 :]) for name in LABEL_FOLDERS]
    usual += [folder / name for name in LABEL_FOLDERS]
    found = next((place for place in usual if place.is_dir()), None)
    return found or (folder if any(map(is_label, _names_in(folder))) else usual[0])


def read_yolo(
    part: YoloPart,
    pictures: Pictures,
    prompt: str,
    limit: int | None,
    progress: Callable[[int], None] | None,
    images: Path | None = None,
) -> DataSet:
    """The data set that a part holds.

    Args:
        part: what to read.
        pictures: reads their sizes.
        prompt: ``<OD>``, or ``<OPEN_VOCABULARY_DETECTION>`` for all of the data set's classes by name.
        limit: at most so many pictures; None is all.
        progress: called with the number of pictures looked at so far.
        images: the folder with the pictures, where they do not lie beside the labels; None is where the data set says.

    Raises:
        DatasetError: another prompt, a list that can't be read, or none of the pictures has a label file.
    """
    data = DataSet(str(part))
    question = question_of(prompt, (name for _, name in sorted(part.classes.items()) if name), "a YOLO data set")
    labels, num_pictures, first = _Labels(), 0, None
    if images is not None:
        labels = _Labels(images, _label_root(part))
        part = replace(part, sources=(images,))
    for path, problem in _pictures(part):
        if problem is not None:
            data.problems.append(problem)
            continue
        if limit is not None and num_pictures >= limit:
            break
        num_pictures, first = num_pictures + 1, first or path
        _add(data, path, labels.of(path), part, pictures, question)
        if progress is not None:
            progress(len(pictures))
    if first is None and not data.problems:
        raise DatasetError(f"there is no image in {' and '.join(map(str, part.sources))}")
    if first is not None and not labels.used:
        _refuse_no_labels(part, first, labels)
    if limit is None and not any(source.is_file() for source in part.sources) and labels.num_unused:
        data.notices[WITHOUT_PICTURE] += labels.num_unused
    return data


def _label_root(part: YoloPart) -> Path:
    """The folder with a part's labels, whose pictures lie elsewhere."""
    first, *others = part.sources
    if others or first.is_file():
        raise DatasetError(f"{part} lists where its images are; leave images out")
    return label_folder(first)


def _refuse_no_labels(part: YoloPart, first: Path, labels: _Labels) -> None:
    """Refuse pictures without a single label file, unless there is an empty folder for them: then none of them shows anything."""
    place = labels.folder_of(first)
    if labels.num_unused or not place.is_dir():
        raise DatasetError(f"{part}: no image has a label file; that of {first} would be {place / first.stem}.txt")


def _add(data: DataSet, path: Path, label: Path | None, part: YoloPart, pictures: Pictures, question: str) -> None:
    """Add a picture's record, or what is wrong with it."""
    where, notices = str(label or path), Counter[str]()
    try:
        size = pictures.size(path)
        things, problems = _things(label, part, size, notices) if label is not None else ([], [])
        data.problems += problems
        if not problems:
            data.records.append(detection_record(where, FilePicture(path), size, question, things))
            data.notices += notices + Counter({UNLABELLED: int(label is None)})
    except Florence2Error as error:
        message = error.message.removeprefix(f"{where} ")
        data.problems.append(Problem(where, message))


def _things(label: Path, part: YoloPart, size: Size, notices: Counter[str]) -> tuple[list[Thing], list[Problem]]:
    """The objects of a label file, and what is wrong with its lines."""
    things: list[Thing] = []
    problems: list[Problem] = []
    seen: set[tuple[float, ...]] = set()
    for number, line in enumerate(text_of(label, _MOST_LABEL_BYTES).splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            values = _numbers(words)
            if tuple(values) in seen:
                notices[REPEATED] += 1
                continue
            seen.add(tuple(values))
            name = _class_name(values[0], part)
            things.append((name, _box(_fractions(values[1:], part.num_keypoint_values), size, notices)))
        except DatasetError as error:
            problems.append(Problem(f"{label}:{number}", error.message))
    return things, problems


def _numbers(words: Sequence[str]) -> list[float]:
    values = []
    for word in words:
        value = number_of(word)
        if value is None:
            raise DatasetError(f"expected numbers with spaces between them, the class first, got {shortened(word)}")
        values.append(value)
    return values


def _class_name(number: float, part: YoloPart) -> str:
    name = part.classes.get(int(number)) if number.is_integer() else None
    if name is None:
        known = f"{min(part.classes)} to {max(part.classes)}"
        raise DatasetError(f"its class is {number:g}, and {part.path.name} names the classes {known}")
    if not name:
        raise DatasetError(f"its class {number:g} has no name in {part.path.name}")
    return name


def _fractions(values: Sequence[float], num_keypoint_values: int) -> Box:
    """The box x1, y1, x2, y2 that the numbers behind a class mean, in fractions of the picture."""
    count = len(values)
    if count in (4, 5) or (num_keypoint_values and count in (4 + num_keypoint_values, 5 + num_keypoint_values)):
        x, y, width, height = values[:4]
        if not (width > 0 and height > 0):
            raise DatasetError(f"a box is its centre, width and height, the last two greater than 0, got {_shown(values[:4])}")
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if count >= 6 and count % 2 == 0:
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    keypoints = f", or {num_keypoint_values} numbers of keypoints behind a box" if num_keypoint_values else ""
    raise DatasetError(
        "expected four numbers behind the class (the centre, width and height of a box), five with a confidence, "
        f"or an outline of at least three pairs of x and y{keypoints}; got {count}"
    )


def _box(fractions: Box, size: Size, notices: Counter[str]) -> Box:
    """A box in pixels, kept within its picture."""
    if any(abs(value) > _FRACTION for value in fractions):
        raise DatasetError(
            f"numbers are fractions of the image, 0 to 1, and the box reaches from {_shown(fractions)}; divide pixels by its size"
        )
    rounded = [0.0 if -_ROUNDING < value < 0 else 1.0 if 1 < value < 1 + _ROUNDING else value for value in fractions]
    x1, y1, x2, y2 = (value * size[index % 2] for index, value in enumerate(rounded))
    return clip((x1, y1, x2, y2), size, notices)


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _pictures(part: YoloPart) -> Iterator[tuple[Path, Problem | None]]:
    """The pictures of a part, each once; and what is wrong with a list of them."""
    seen: set[str] = set()
    for source in part.sources:
        for path, problem in _listed(source, part.root) if source.is_file() else _in_folder(source):
            if str(path) not in seen or problem is not None:
                seen.add(str(path))
                yield path, problem


def _in_folder(folder: Path) -> Iterator[tuple[Path, Problem | None]]:
    walked = walk(str(folder))
    for name, why in walked.unreadable.items():
        yield Path(name), Problem(name, f"the folder can't be read: {why}")
    yield from ((Path(path), None) for path in walked.paths if PICTURE_NAME.search(path))


def _listed(source: Path, root: Path) -> Iterator[tuple[Path, Problem | None]]:
    """The pictures that a list names, a path on each line."""
    for number, line in enumerate(text_of(source, _MOST_LIST_BYTES).splitlines(), start=1):
        name = line.strip()
        if not name:
            continue
        found = find_below([source.parent, root], name) if "\0" not in name else None
        missing = (
            None
            if found
            else Problem(f"{source}:{number}", f"there is no file {shortened(name)}, neither in {source.parent} nor in {root}")
        )
        yield found or Path(name), missing


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
