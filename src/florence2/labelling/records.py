"""What the folder of a labelling run holds, journals and parts alike: each picture once, in the order of their names, without holding them.

In: a run's folder, of which another process may be writing at the same time. Out: the header, and the records. Of a picture that stands in
several places an answer counts before an error, unless that is of a file of another length, and the later before the earlier. What was cut
off at the end of a file, and parts that are damaged, are passed over. Only the places of the records are kept. Knows nothing of objects and
formats.
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from florence2.errors import DatasetError
from florence2.inputs.folders import RUN_FOLDER
from florence2.labelling.answered import Answered, Gathered, place_of
from florence2.labelling.options import changes
from florence2.labelling.part_files import is_url
from florence2.labelling.part_rows import Heads, is_header
from florence2.labelling.parts import PartsFolder, parts_in
from florence2.labelling.unpacked import Unpacked

STATE = RUN_FOLDER
JOURNALS = "journal*.jsonl"
AFTER = "after"
"""The key of a line that says which parts were there when the lines below it were written; they count as later than these."""
_LINES_AT_ONCE = 10_000
_DIGITS = re.compile(r"\d+")
_MOST_DIGITS = 20


class _Line(NamedTuple):
    """Where a record stands.

    Attributes:
        file: the number of its journal, or behind the journals of its part.
        offset: of the line in a journal, or the row in a part.
        num_bytes: of the line; 0 in a part.
        order: what counts before lower ones: twice the number of parts that are earlier, and for a part one more.
    """

    file: int
    offset: int
    num_bytes: int
    order: int


class Records:
    """The records of a run's journals and parts as they are now.

    Args:
        folder: the run's output folder.

    Attributes:
        header: what was asked, and of which model.
        labelled: ids of the pictures that were labelled, in their order.
        places: the files of these by their absolute paths, with the mark of the page or frame; and the lengths that they had.
        failed: ids of those that could not be, in their order.
        after: for each journal the name of the last part that is earlier than its last lines.
        num_damaged: lines that can't be read.
        damaged: parts that can't be read, each with the reason.

    Raises:
        DatasetError: there is no run in it, it can't be read, or its journals and parts were asked different things.
    """

    def __init__(self, folder: Path) -> None:
        self._files = sorted((folder / STATE).glob(JOURNALS))
        self._state, self._parts = folder / STATE, parts_in(folder)
        self._names = self._parts.names()
        self.after: dict[str, str] = {}
        self.num_damaged = 0
        self.damaged = self._parts.damaged
        self._unpacked: Unpacked | None = None
        self._lines: dict[str, _Line] = {}
        failed: set[str] = set()
        self._replaced: dict[str, tuple[_Line, int]] = {}  # answers that an error followed, with the lengths of their files
        self._places: dict[str, str] = {}
        self._lengths: dict[str, int] = {}
        if (header := header_in(folder, self._parts)) is None:
            raise no_run(folder)
        self.header = header
        for number in range(len(self._files)):
            self._read(number, failed)
        numbers = {name: number for number, name in enumerate(self._names)}
        for name, heads in self._parts.heads(self._names):
            self._take_part(numbers[name], heads, failed)
        self._restore(failed)
        self.labelled = sorted(self._lines.keys() - failed, key=_natural)
        self.places = {self._places[name]: self._lengths.get(name) for name in self.labelled if name in self._places}
        self.failed = sorted((name for name in failed if self._places.get(name) not in self.places), key=_natural)

    @property
    def lengths(self) -> dict[str, int | None]:
        """The labelled pictures by their ids, with the lengths in bytes that their files had, where these are known."""
        return {name: self._lengths.get(name) for name in self.labelled}

    @property
    def notices(self) -> list[str]:
        """Lines on the parts that were passed over."""
        return self._parts.notices

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
        self._unpack(names)
        with ExitStack() as opened:
            files = [opened.enter_context(path.open("rb")) for path in self._files]
            for line in map(self._lines.__getitem__, names):
                if line.file < len(files):
                    files[line.file].seek(line.offset)
                    yield json.loads(files[line.file].read(line.num_bytes))
                elif self._unpacked is not None:
                    yield json.loads(self._unpacked.read(line.offset, line.num_bytes))

    def _unpack(self, names: Sequence[str]) -> None:
        """Have the records of parts stand as lines where they can be read in any order, as far as they do not yet.

        Raises:
            DatasetError: a part has gone, or changed, since its pictures were listed.
        """
        wanted: dict[int, set[str]] = {}
        for name in names:
            line = self._lines[name]
            if line.file >= len(self._files) and not line.num_bytes:
                wanted.setdefault(line.file, set()).add(name)
        for number, held in sorted(wanted.items()):
            self._unpacked = self._unpacked or Unpacked(self._state)
            part = self._names[number - len(self._files)]
            for row, record in self._parts.records(part):
                if record["id"] in held and self._lines[record["id"]].offset == row:
                    line = json.dumps(record).encode("ascii")
                    self._lines[record["id"]] = _Line(number, self._unpacked.append(line), len(line), 0)
                    held.discard(record["id"])
            if held:
                raise DatasetError(f"{self._parts.folder}/{part} has gone or changed while it was read; give the same command again")

    def _read(self, number: int, failed: set[str]) -> None:
        path, order = self._files[number], 0
        try:
            with path.open("rb") as file:
                offset = len(file.readline())
                for written in file:
                    record = _record(written)
                    if record is not None and isinstance(name := record.get("id"), str):
                        line = _Line(number, offset, len(written), order)
                        self._take(name, line, record.get("path"), record.get("num_bytes"), failed, is_failure="error" in record)
                    elif record is not None and isinstance(last := record.get(AFTER), str):
                        order, self.after[path.name] = 2 * bisect_right(self._names, last), last
                    elif written.endswith(b"\n"):
                        self.num_damaged += 1
                    offset += len(written)
        except OSError as error:
            raise DatasetError(f"{path} can't be read: {error.strerror}") from error

    def _take_part(self, index: int, heads: Heads, failed: set[str]) -> None:
        """Take what a part says of its pictures."""
        for row, name, path, length, is_failure in zip(*heads, strict=True):
            self._take(name, _Line(len(self._files) + index, row, 0, 2 * index + 1), path, length, failed, is_failure=is_failure)

    def _take(self, name: str, line: _Line, path: str | None, length: int | None, failed: set[str], *, is_failure: bool) -> None:
        """Take what a line says of a picture, unless what is known already counts more."""
        if name in self._lines and name not in failed:
            known = self._lengths.get(name)
            is_of_another_file = is_failure and None not in (known, length) and known != length
            if (is_failure and not is_of_another_file) or self._lines[name].order > line.order:
                return
            if is_of_another_file:
                self._replaced[name] = self._lines[name], self._lengths[name]
        self._lines[name] = line
        (failed.add if is_failure else failed.discard)(name)
        if path:
            self._places[name] = place_of(name, path)
        if isinstance(length, int):
            self._lengths[name] = length

    def _restore(self, failed: set[str]) -> None:
        """Take the answers of pictures that broke afterwards, and whose files are as long as they were by now, or gone."""
        for name in failed & self._replaced.keys():
            line, length = self._replaced[name]
            with suppress(OSError):  # gone, so that nothing speaks against the answer
                if os.stat(self._places.get(name, name)).st_size != length:
                    continue
            self._lines[name], self._lengths[name] = line, length
            failed.discard(name)


def header_in(folder: Path, parts: PartsFolder | None = None) -> Mapping[str, Any] | None:
    """What was asked in a run, and of which model, without a look at its answers; None where there is no run.

    Args:
        folder: the run's output folder.
        parts: its parts, if they are open.

    Raises:
        DatasetError: it can't be read, or journals and parts were asked different things.
    """
    headers: list[Mapping[str, Any]] = [
        header for path in sorted((folder / STATE).glob(JOURNALS)) if (header := _header_of(path)) is not None
    ]
    parts = parts or parts_in(folder)
    if parts.header is not None:
        headers.append(parts.header)
    for header in headers[1:]:
        if changed := changes(headers[0]["asked"], header["asked"]):
            raise DatasetError(f"the shards of {folder} were asked different things: {'; '.join(changed)}")
    return headers[0] if headers else None


def no_run(folder: Path) -> DatasetError:
    """The error on a folder that holds no run, or none that can be read."""
    parts = parts_in(folder)
    if names := parts.names():
        list(parts.heads(names))
        why = "; ".join(parts.notices)
        return DatasetError(f"no part of the run in {folder} can be read ({why}); give the same command again, which asks anew")
    return DatasetError(f"there is no journal of florence2 label in {folder}; give the folder behind its --output")


def _header_of(path: Path) -> dict[str, Any] | None:
    """The first line of a journal; None where it was cut off."""
    try:
        with path.open("rb") as file:
            header = _record(file.readline())
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}") from error
    if header is not None and not is_header(header):
        raise DatasetError(f"{path} is no journal that this version of florence2 reads; use the version that wrote it, or a new --output")
    return header


def answered_in(folder: str | os.PathLike[str], parts: PartsFolder | None = None) -> Answered:
    """The pictures of a run that were labelled, by journals and parts together, small enough for a hundred million of them.

    Args:
        folder: the run's output folder; a path, or a URL such as ``s3://bucket/run``.
        parts: its parts, if they are open, which note those that are damaged.
    """
    parts, gathered = parts or parts_in(folder), Gathered()
    names = parts.names()
    orders = {name: number for number, name in enumerate(names, 1)}
    for name, heads in parts.heads(names):
        heads.gather(gathered, orders[name])
    if not is_url(os.fspath(folder)):
        for path in sorted((Path(folder) / STATE).glob(JOURNALS)):
            _gather(path, names, gathered)
    return gathered.answered()


def _gather(path: Path, parts: Sequence[str], gathered: Gathered) -> None:
    """Add the pictures that a journal says were labelled."""
    order = 0
    try:
        with path.open("rb") as file:
            while lines := list(islice(file, _LINES_AT_ONCE)):
                held: list[dict[str, Any]] = []
                for record in filter(None, map(_record, lines)):
                    if isinstance(last := record.get(AFTER), str):
                        gathered.add_records(held, order)
                        order, held = bisect_right(parts, last), []
                    elif isinstance(record.get("id"), str) and "error" not in record:
                        held.append(record)
                gathered.add_records(held, order)
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
