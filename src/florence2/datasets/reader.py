"""Data sets from where users have them: JSONL, COCO detection, folders of either.

In: a name: a ``.jsonl`` file, a COCO ``.json`` file, or a folder with parts. Out: a ``DataSet`` of checked records. Every line and
annotation is looked at, so that what is wrong is known before anything long begins. What a file holds is decided by its content,
not by its name.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from pathlib import Path
from typing import Any

from florence2.datasets.coco import PARTS, is_coco, read_coco
from florence2.datasets.folders import TEST, TRAIN, VALID, file_of
from florence2.datasets.json_files import content_of
from florence2.datasets.jsonl import JsonlReader, entries_of_lines, entries_of_list
from florence2.datasets.pictures import Pictures
from florence2.datasets.record import DataSet
from florence2.errors import DatasetError, InvalidOption

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
    for_training: bool = True,
    answered: bool = True,
) -> DataSet:
    """The data set of that name.

    Args:
        name: a ``.jsonl`` file, a COCO detection ``.json`` file, a folder with train, valid and test, or ``synthetic:COUNT?seed=…``. Of a
            folder, ``train`` is learnt from, and ``test`` measured on, or ``valid`` where there is no ``test``.
        images: the folder that pictures' names are relative to; None is the file's own.
        prompt: the prompt for the pictures of a COCO file: ``<OD>``, or ``<OPEN_VOCABULARY_DETECTION>`` for all its classes by name.
        own_tags: let prompts pass that begin like a tag which is none of the fifteen.
        limit: at most so many pictures; None is all.
        progress: called with the number of pictures looked at so far.
        for_training: whether it is learnt from; scenes to learn from and scenes to be measured on have seeds of their own.
        answered: whether every line of a ``.jsonl`` file must have an answer; a record without one has no ``answers``.

    Raises:
        DatasetError: there is no such file, or it is no data set at all. What is wrong within it is in ``DataSet.problems``.
    """
    path = file_of_dataset(name, for_training)
    pictures = Pictures(images or path.parent)
    content = content_of(path) if path.suffix.lower() == ".json" else None
    if is_coco(content):
        return read_coco(path, content, pictures, prompt, limit, progress)
    if content is not None and not _is_list_of_records(content):
        raise DatasetError(f"{path} is no COCO detection file: expected an object with the lists {', '.join(PARTS)}")
    entries = entries_of_lines(path) if content is None else entries_of_list(path, content)
    return JsonlReader(pictures, own_tags, answered).read(str(path), entries, limit, progress)


def file_of_dataset(name: str, for_training: bool) -> Path:
    """The file that holds a data set: itself, or the one of a folder's part.

    Raises:
        DatasetError: there is none.
    """
    path = Path(file_of(name, (TRAIN,) if for_training else (TEST, VALID)))
    if not path.is_file():
        raise DatasetError(
            f"there is no data set {name!r}: expected a .jsonl file, a COCO .json file, a folder with train, valid and test, "
            "or synthetic:COUNT?seed=S"
        )
    return path


def _is_list_of_records(content: Any) -> bool:
    return isinstance(content, list) and any(isinstance(entry, dict) and "image" in entry for entry in content)
