"""Data sets from where users have them: JSONL, COCO detection, YOLO, Pascal VOC, tables of captions, and folders of these.

In: a name: a data file, the ``data.yaml`` of a YOLO data set, or a folder with parts. Out: a ``DataSet`` of checked records. Every line and
annotation is looked at, so that what is wrong is known before anything long begins. What a ``.json`` file holds is decided by its content,
not by its name.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from florence2.datasets.captions import entries_of_captions, is_coco_captions
from florence2.datasets.coco import PARTS, is_coco, names_in_coco, read_coco
from florence2.datasets.folders import Part, find_part
from florence2.datasets.json_files import content_of
from florence2.datasets.jsonl import Entry, JsonlReader, entries_of_lines, entries_of_list, entries_of_rows, names_in_entries
from florence2.datasets.part_names import TEST, TRAIN, VALID
from florence2.datasets.pictures import Pictures, folder_of_pictures
from florence2.datasets.record import DataSet
from florence2.datasets.voc import VocPart, read_voc
from florence2.datasets.yolo import read_yolo
from florence2.datasets.yolo_sets import YoloPart
from florence2.errors import DatasetError, InvalidOption

_TABLES = (".csv", ".tsv")
_DATA = (".jsonl", ".json", *_TABLES)
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_EXPECTED = (
    "a .jsonl file, a COCO .json file, the data.yaml of a YOLO data set, a folder with train, valid and test, a table of captions (.csv), "
    "or synthetic:COUNT?seed=S"
)
_NAMES_LOOKED_AT = 20

Progress = Callable[[int], None]


def check_limit(limit: int | None) -> None:
    """Refuse a limit that leaves no picture.

    Raises:
        InvalidOption: it is no whole number, or under 1.
    """
    if limit is not None and (not isinstance(limit, numbers.Integral) or limit < 1):
        raise InvalidOption(f"limit must be at least 1, got {limit!r}", field="limit")


def read_dataset(
    name: str,
    *,
    images: Path | None = None,
    prompt: str = "<OD>",
    own_tags: bool = False,
    limit: int | None = None,
    progress: Progress | None = None,
    parts: Sequence[str] | None = None,
    for_training: bool = True,
    answered: bool = True,
) -> DataSet:
    """The data set of that name.

    Args:
        name: a ``.jsonl`` file, a COCO detection ``.json`` file, a ``data.yaml``, a folder with train, valid and test, or a table with
            captions (``.csv``, ``.tsv``).
        images: the folder that pictures' names are relative to; None is the file's own.
        prompt: the prompt for the pictures of data sets with boxes: ``<OD>``, or ``<OPEN_VOCABULARY_DETECTION>`` for all classes
            by name; and for a table of captions, ``<CAPTION>`` where it is ``<OD>``.
        own_tags: let prompts pass that begin like a tag which is none of the fifteen.
        limit: at most so many pictures; None is all.
        progress: called with the number of pictures looked at so far.
        parts: which part of a folder is read, the first one that there is; None is ``train`` to learn from, and ``test`` to measure on, or
            ``valid`` where there is no ``test``.
        for_training: whether it is learnt from; scenes to learn from and scenes to be measured on have seeds of their own.
        answered: whether every line of a ``.jsonl`` file must have an answer; a record without one has no ``answers``.

    Raises:
        DatasetError: there is no such file, or it is no data set at all. What is wrong within it is in ``DataSet.problems``.
    """
    part = find_dataset(name, parts or _parts(for_training))
    if isinstance(part, YoloPart):
        return read_yolo(part, Pictures(part.root), prompt, limit, progress, images)
    if isinstance(part, VocPart):
        return read_voc(part, prompt, limit, progress, images)
    return _read_file(part, images, prompt, limit, progress, own_tags=own_tags, answered=answered)


def _read_file(
    path: Path, images: Path | None, prompt: str, limit: int | None, progress: Progress | None, *, own_tags: bool, answered: bool
) -> DataSet:
    """The data set that a file holds; arguments and errors as in ``read_dataset``."""
    content = content_of(path) if path.suffix.lower() == ".json" else None
    is_captions = is_coco_captions(content)
    if is_coco(content) and not is_captions:
        pictures = Pictures(images or folder_of_pictures(path, names_in_coco(content, _NAMES_LOOKED_AT)))
        return read_coco(path, content, pictures, prompt, limit, progress)
    if content is not None and not is_captions and not _is_list_of_records(content):
        raise DatasetError(f"{path} is no COCO detection file: expected an object with the lists {', '.join(PARTS)}")
    first = islice(_entries(path, content, prompt), _NAMES_LOOKED_AT)
    reader = JsonlReader(Pictures(images or folder_of_pictures(path, names_in_entries(first))), own_tags, answered, prompt)
    return reader.read(str(path), _entries(path, content, prompt), limit, progress)


def _entries(path: Path, content: Any, prompt: str) -> Iterable[Entry]:
    """Where each entry of a file stands, and what gives its fields."""
    if path.suffix.lower() in _TABLES:
        return entries_of_rows(path)
    if content is None:
        return entries_of_lines(path)
    return entries_of_captions(path, content, prompt) if isinstance(content, dict) else entries_of_list(path, content)


def find_dataset(name: str, parts: Sequence[str]) -> Part:
    """The part of a data set that is wanted.

    Args:
        name: of a file or a folder.
        parts: which part of a folder is wanted, the first one that there is.

    Raises:
        DatasetError: there is none.
    """
    part = find_part(name, parts)
    if isinstance(part, Path) and not part.is_file():
        raise DatasetError(f"there is no data set {name!r}: expected {_EXPECTED}")
    if isinstance(part, Path) and part.suffix.lower() not in _DATA and not _begins_like_json(part):
        if part.suffix.lower() in _ARCHIVES:
            raise DatasetError(f"{part} is an archive: unpack it, and give the folder")
        raise DatasetError(f"{part} is no data set: expected {_EXPECTED}")
    return part


def check_dataset(name: str, for_training: bool) -> None:
    """Refuse the name of a data set that is not there; errors as in ``find_dataset``."""
    find_dataset(name, _parts(for_training))


def _begins_like_json(path: Path) -> bool:
    """Whether a file of another name may hold JSON, in whatever Unicode encoding."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:  # which reading it says
        return True
    return start.translate(None, b"\0\xff\xfe\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[", b"")


def _parts(for_training: bool) -> tuple[str, ...]:
    return (TRAIN,) if for_training else (TEST, VALID)


def _is_list_of_records(content: Any) -> bool:
    return isinstance(content, list) and any(isinstance(entry, dict) and "image" in entry for entry in content)
