"""JSONL with a prompt and its answer on each line, as ``florence2 train`` and maestro learn them.

In: a labelled set. Out: ``train/annotations.jsonl`` and ``valid/annotations.jsonl``, each with its pictures beside it. An example that
training would refuse, because its answer can't be read back as it is, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from florence2.datasets.labelled import LabelledPicture, LabelledSet
from florence2.datasets.pictures import FilePicture
from florence2.datasets.record import make_record
from florence2.datasets.writers.entries import Entries, in_split
from florence2.datasets.writers.json_writing import to_json
from florence2.datasets.writers.written import Notices, WriteOptions, Written
from florence2.errors import Florence2Error

FILE = "annotations.jsonl"
NOT_LEARNABLE = "examples were left out, because their answers can't be learnt as they are"
_FOLDERS = {"train": "train", "val": "valid"}


def write(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
    """Write a labelled set as lines of JSON, and return what was written."""
    entries = Entries(data, folder, options)
    with ExitStack() as stack:
        (folder / "train").mkdir()
        files = {"train": stack.enter_context((folder / "train" / FILE).open("wb"))}
        for entry in entries.placed(in_split(**_FOLDERS)):
            part = _FOLDERS[entry.picture.split]
            if part not in files:
                (folder / part).mkdir(exist_ok=True)
                files[part] = stack.enter_context((folder / part / FILE).open("wb"))
            for prompt, answer in _learnable(entry.picture, entries.notices):
                line = {"image": entry.file.removeprefix(f"{part}/"), "prefix": prompt, "suffix": answer}
                files[part].write(f"{to_json(line)}\n".encode())
    return entries.written()


def _learnable(picture: LabelledPicture, notices: Notices) -> Iterator[tuple[str, str]]:
    """The examples that training takes."""
    for prompt, answer in picture.examples:
        try:
            make_record(picture.name, FilePicture(picture.file), picture.size, prompt, [answer], own_tags=True)
        except Florence2Error:
            notices.add(NOT_LEARNABLE, picture.name)
        else:
            yield prompt, answer
