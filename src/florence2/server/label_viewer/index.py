"""All labelled pictures of a run in the form in which a page asks about them.

In: labelled pictures and those that could not be labelled. Out: an ``Index``: arrays of what is filtered and sorted by, and each picture's
whole record, which lies in a temporary file, so that memory grows by about the length of names and texts. Knows no filters and no HTTP.
"""

from __future__ import annotations

import json
import re
import secrets
import tempfile
import threading
import unicodedata
import weakref
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from florence2.datasets.labelled import LabelledObject, LabelledPicture, LabelledSet

NUM_QUAD_VALUES = 8
_NO_UNICODE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Problem:
    """A picture that could not be labelled.

    Attributes:
        name: as a label run calls it.
        where: where it came from, as its user knows it.
        file: the file with its pixels; None where there is none on this machine.
        message: what went wrong.
    """

    name: str
    where: str
    file: Path | None
    message: str


class Index:
    """The pictures of a run, those with problems last.

    Args:
        data: the labelled pictures.
        problems: the others.

    Attributes:
        version: a text that no other index has.
        classes: the names of the classes.
        num_labelled: how many pictures are labelled.
        names: of all pictures.
        files: of all pictures; empty where there is none.
        texts: what a search for words goes through, folded by ``folded``.
        is_val: which pictures are held out for validation.
        has_texts: which pictures have an answer that is a text.
        object_picture: for each object of the run its picture.
        object_class: for each object its class; -1 for one that is not in the list.
        object_score: for each object its score; NaN where there is none.
    """

    def __init__(self, data: LabelledSet, problems: Iterable[Problem] = ()) -> None:
        self.version = secrets.token_urlsafe(9)
        self.classes: Sequence[str] = tuple(data.classes)
        self.names: list[str] = []
        self.files: list[str] = []
        self.texts: list[str] = []
        self._records, self._offsets, self._reading = tempfile.TemporaryFile(), [0], threading.Lock()  # noqa: SIM115 - for as long as this is
        weakref.finalize(self, self._records.close)
        pictures, classes, scores, is_val, has_texts = array("q"), array("q"), array("d"), bytearray(), bytearray()
        numbers = {name: number for number, name in enumerate(self.classes)}
        for index, picture in enumerate(data.pictures()):
            self._add(_record(picture), str(picture.file))
            is_val.append(picture.split == "val")
            has_texts.append(any(text.strip() for text in picture.texts.values()))
            for found in picture.objects:
                pictures.append(index)
                classes.append(numbers.get(found.label, -1))
                scores.append(np.nan if found.score is None else found.score)
        self.num_labelled = len(self.names)
        for problem in problems:
            self._add(_problem_record(problem), "" if problem.file is None else str(problem.file))
        self.is_val, self.has_texts = (np.frombuffer(flags.ljust(len(self), b"\0"), bool) for flags in (is_val, has_texts))
        self.object_picture = np.array(pictures, np.int64)
        self.object_class = np.array(classes, np.int64)
        self.object_score = np.array(scores, np.float64)

    def __len__(self) -> int:
        return len(self.names)

    def records(self, indices: Iterable[int]) -> list[dict[str, Any]]:
        """What is known of some pictures, as JSON, each with its index."""
        return [{"index": index, **json.loads(self._read(index))} for index in indices]

    def find(self, name: str) -> int | None:
        """The index of the picture with a name, as an address has it: with U+FFFD for bytes that are no Unicode."""
        return self._by_name.get(name)

    @cached_property
    def counts(self) -> list[dict[str, Any]]:
        """Each class with how many objects there are of it, and in how many pictures."""
        known = self.object_class >= 0
        objects = np.bincount(self.object_class[known], minlength=len(self.classes))
        pairs = np.unique(np.stack([self.object_class[known], self.object_picture[known]]), axis=1)
        pictures = np.bincount(pairs[0], minlength=len(self.classes))
        return [
            {"name": name, "num_objects": int(objects[number]), "num_pictures": int(pictures[number])}
            for number, name in enumerate(self.classes)
        ]

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return {_NO_UNICODE.sub("\ufffd", name): index for index, name in reversed(list(enumerate(self.names)))}

    def _add(self, record: dict[str, Any], file: str) -> None:
        self.names.append(record["name"])
        self.files.append(file)
        found = [one.get("text", "") for one in record["objects"]]
        self.texts.append(folded("\n".join([record["name"], record["where"], *record["texts"].values(), *found])))
        line = json.dumps(record).encode()
        self._records.write(line)
        self._offsets.append(self._offsets[-1] + len(line))

    def _read(self, index: int) -> bytes:
        start, end = self._offsets[index : index + 2]
        with self._reading:
            self._records.seek(start)
            return self._records.read(end - start)


def folded(text: str) -> str:
    """A text in the form in which texts are compared: neither case nor the form of Unicode counts."""
    return unicodedata.normalize("NFKC", text).casefold()


def _record(picture: LabelledPicture) -> dict[str, Any]:
    return {
        "name": picture.name,
        "where": picture.where or str(picture.file),
        "size": list(picture.size),
        "split": picture.split,
        "objects": [_object(found) for found in picture.objects],
        "texts": dict(picture.texts),
    }


def _problem_record(problem: Problem) -> dict[str, Any]:
    return {"name": problem.name, "where": problem.where, "size": None, "objects": [], "texts": {}, "problem": problem.message}


def _object(found: LabelledObject) -> dict[str, Any]:
    """An object as the page's viewer takes it; coordinates to a hundredth of a pixel."""
    outlines = [[round(value, 2) for value in outline] for outline in found.polygons]
    shape: dict[str, Any] = {"box": [round(value, 2) for value in found.box]}
    if outlines and found.text and len(outlines) == 1 and len(outlines[0]) == NUM_QUAD_VALUES:
        shape["quad"] = outlines[0]
    elif outlines:
        shape["polygons"] = outlines
    score = {} if found.score is None else {"score": round(found.score, 4)}
    return {"label": found.label, **shape, **score, **({"text": found.text} if found.text else {}), "task": found.task}
