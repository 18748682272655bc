"""Texts written beside original pictures, in folders that belong to their user.

In: pictures and their texts, and the record of what an earlier run wrote there. Out: a text file beside each picture, and a record of it. A
file that was there before, or that was changed since it was written, is not touched. What is remembered is eight bytes a picture.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from florence2.datasets.json_files import lines_of, parse_line
from florence2.datasets.labelled import LabelledPicture, LabelledSet
from florence2.datasets.writers.json_writing import to_json
from florence2.errors import DatasetError, InvalidImage

WRITTEN = "written.jsonl"


class OriginalTexts:
    """The texts of one run.

    Args:
        data: all pictures that get a text.
        before: the record of an earlier run, if there is one. What this run writes is noted there first, so that a run that is killed
            leaves no text that the next one takes for its user's.
    """

    def __init__(self, data: LabelledSet, before: Path) -> None:
        self._ours = np.sort(np.frombuffer(array("Q", map(_mark, _records(before))), dtype=np.uint64))
        targets, counts = np.unique(array("Q", (_short(_target(picture)) for picture in data.pictures())), return_counts=True)
        self._shared = set(targets[counts > 1].tolist())
        self._taken: set[int] = set()
        self._before = before if before.is_file() else None

    def write(self, picture: LabelledPicture, content: bytes) -> dict[str, str]:
        """Write a text beside its picture, and return the record of it.

        Raises:
            InvalidImage: the picture is gone, its folder can't be written, or the text would stand in place of another one.
        """
        target = _target(picture)
        if not picture.file.is_file():
            raise _refused(f"its file {picture.file} is not there any more")
        self._claim(target)
        record = {"file": str(target), "sha256": hashlib.sha256(content).hexdigest()}
        try:
            self._put(target, content, record)
        except OSError as error:
            message = f"{target} can't be written: {error.strerror}; with pictures linked or copied, texts lie in the output"
            raise _refused(message) from None
        return record

    def _claim(self, target: Path) -> None:
        """Let the first of several pictures that would have the same text file have it."""
        mark = _short(target)
        if mark in self._taken:
            raise _refused(f"{target} is the text of another picture, whose name differs in its ending alone")
        if mark in self._shared:
            self._taken.add(mark)

    def _put(self, target: Path, content: bytes, record: dict[str, str]) -> None:
        if os.path.lexists(target):
            found = target.read_bytes()
            if found == content:
                return
            if not self._is_ours(target, found):
                raise _refused(f"{target} was there before, or was changed since it was written; it is left as it is")
        if self._before is not None:
            with self._before.open("ab") as file:
                file.write(f"{to_json(record)}\n".encode())
        beside = target.with_name(f".{target.stem[:60]}.{_short(target):016x}")
        try:
            beside.write_bytes(content)
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)

    def _is_ours(self, target: Path, content: bytes) -> bool:
        mark = _mark({"file": str(target), "sha256": hashlib.sha256(content).hexdigest()})
        index = int(np.searchsorted(self._ours, np.uint64(mark)))
        return index < len(self._ours) and int(self._ours[index]) == mark


def _target(picture: LabelledPicture) -> Path:
    return picture.file.with_suffix(".txt")


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """What an earlier run wrote; nothing where there was none."""
    if not path.is_file():
        return
    for line in lines_of(path):
        try:
            record = parse_line(line)
        except DatasetError:  # a damaged line makes a text one that is not ours
            continue
        if isinstance(record, dict) and "file" in record and "sha256" in record:
            yield record


def _mark(record: dict[str, Any]) -> int:
    """What tells a text at its place from others."""
    return _short(f"{record['file']}\0{record['sha256']}")


def _short(value: Path | str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(value)).digest()[:8], "little")


def _refused(message: str) -> InvalidImage:
    return InvalidImage(message, field="image")
