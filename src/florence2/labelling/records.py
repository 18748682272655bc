"""The journals of a labelling run as they are read: each picture once, in the order of their names, without holding them.

In: a run's folder, of which another process may be writing at the same time. Out: the header, and the records. Of a picture that stands in
several lines the last one counts; what was cut off at the end of a file is passed over. Only the places of the lines are kept. Knows
nothing of objects and formats.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from florence2.errors import DatasetError
from florence2.inputs.folders import RUN_FOLDER
from florence2.labelling.answered import Answered, Gathered
from florence2.labelling.options import changes
from florence2.labelling.part_files import is_url
from florence2.labelling.parts import parts_in
from florence2.labelling.shards import file_and_part

STATE = RUN_FOLDER
_LINES_AT_ONCE = 10_000
_DIGITS = re.compile(r"\d+")
_MOST_DIGITS = 20


class _Line(NamedTuple):
    """Where a record stands."""

    file: int
    offset: int
    num_bytes: int


class Records:
    """The records of a run's journals as they are now.

    Args:
        folder: the run's output folder.

    Attributes:
        header: what was asked, and of which model.
        labelled: ids of the pictures that were labelled, in their order.
        places: the files of these by their absolute paths, with the mark of the page or frame; and the lengths that they had.
        failed: ids of those that could not be, in their order.
        num_damaged: lines that can't be read.

    Raises:
        DatasetError: there is no journal in it, it can't be read, or its shards were asked different things.
    """

    def __init__(self, folder: Path) -> None:
        self._files = sorted((folder / STATE).glob("journal*.jsonl"))
        self.header: Mapping[str, Any] = {}
        self.num_damaged = 0
        lines: dict[str, _Line] = {}
        failed: set[str] = set()
        self._places: dict[str, str] = {}
        self._lengths: dict[str, int] = {}
        for number in range(len(self._files)):
            self._read(number, lines, failed)
        if not self.header:
            raise DatasetError(f"there is no journal of florence2 label in {folder}; give the folder behind its --output")
        self._lines = lines
        self.labelled = sorted(lines.keys() - failed, key=_natural)
        self.places = {self._places[name]: self._lengths.get(name) for name in self.labelled if name in self._places}
        self.failed = sorted((name for name in failed if self._places.get(name) not in self.places), key=_natural)

    @property
    def lengths(self) -> dict[str, int | None]:
        """The labelled pictures by their ids, with the lengths in bytes that their files had, where these are known."""
        return {name: self._lengths.get(name) for name in self.labelled}

    def __len__(self) -> int:
        """How many pictures were labelled."""
        return len(self.labelled)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The records of labelled pictures, by their ids; numbers in ids count as numbers."""
        return self._read_again(self.labelled)

    def failures(self) -> Iterator[dict[str, Any]]:
        """The records of pictures that could not be labelled, by their ids."""
        return self._read_again(self.failed)

    def _read_again(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        with ExitStack() as opened:
            files = [opened.enter_context(path.open("rb")) for path in self._files]
            for line in map(self._lines.__getitem__, names):
                files[line.file].seek(line.offset)
                yield json.loads(files[line.file].read(line.num_bytes))

    def _read(self, number: int, lines: dict[str, _Line], failed: set[str]) -> None:
        path, offset = self._files[number], 0
        try:
            with path.open("rb") as file:
                for written in file:
                    record = _record(written)
                    if offset == 0 and record is not None:
                        self._take_header(path, record)
                    elif record is not None and isinstance(name := record.get("id"), str):
                        is_failure = "error" in record
                        if not is_failure or name not in lines or name in failed:  # an answer counts, wherever it stands
                            lines[name] = _Line(number, offset, len(written))
                            (failed.add if is_failure else failed.discard)(name)
                            if record.get("path"):
                                self._places[name] = f"{record['path']}{file_and_part(name)[1]}"
                            if isinstance(length := record.get("num_bytes"), int):
                                self._lengths[name] = length
                    elif written.endswith(b"\n"):
                        self.num_damaged += 1
                    offset += len(written)
        except OSError as error:
            raise DatasetError(f"{path} can't be read: {error.strerror}") from error

    def _take_header(self, path: Path, header: Mapping[str, Any]) -> None:
        if header.get("version") != 1 or not isinstance(header.get("asked"), dict):
            raise DatasetError(
                f"{path} is no journal that this version of florence2 reads; use the version that wrote it, or a new --output"
            )
        if self.header and (changed := changes(self.header["asked"], header["asked"])):
            raise DatasetError(f"the shards of {path.parent.parent} were asked different things: {'; '.join(changed)}")
        self.header = self.header or header


def answered_in(folder: str | os.PathLike[str]) -> Answered:
    """The pictures of a run that were labelled, by journals and parts together, in memory for millions of them.

    Args:
        folder: the run's output folder; a path, or a URL such as ``s3://bucket/run``.
    """
    gathered = Gathered()
    if not is_url(os.fspath(folder)):
        for path in sorted((Path(folder) / STATE).glob("journal*.jsonl")):
            _gather(path, gathered)
    parts_in(folder).gather(gathered)
    return gathered.answered()


def _gather(path: Path, gathered: Gathered) -> None:
    """Add what a journal's lines say of pictures that were labelled."""
    try:
        with path.open("rb") as file:
            while lines := list(islice(file, _LINES_AT_ONCE)):
                read = [record for line in lines if (record := _record(line)) and "id" in record and "error" not in record]
                ids = [str(record["id"]) for record in read]
                gathered.add(ids, [record.get("path") for record in read], [record.get("num_bytes") for record in read])
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}") from error


def _record(written: bytes) -> dict[str, Any] | None:
    """What a line says; None for one that was cut off or is damaged."""
    try:
        record = json.loads(written) if written.endswith(b"\n") else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _natural(name: str) -> tuple[str, str]:
    """What names are sorted by, so that page 3 stands before page 10."""
    return _DIGITS.sub(lambda found: found[0].lstrip("0").rjust(_MOST_DIGITS, "0"), name), name
