"""The journal of a labelling run: what is known of each picture, appended as soon as it is known, so that a killed run goes on.

In: the run's folder, what is asked, and records. Out: a file in ``DIR/.florence2`` whose first line is a header and each other one a
picture. A line is written at once and reaches the disk within a second; what a kill or a full disk leaves of one is cut off. A folder that
holds something else, another command that runs in it, and a header that asks something else are refused. ``records`` reads journals. Knows
nothing of what records hold.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from florence2.console import shown
from florence2.errors import DatasetError, InvalidOption
from florence2.file_locks import Held, held
from florence2.labelling.options import differences, refused
from florence2.labelling.part_files import is_url
from florence2.labelling.parts import PartsFolder, parts_in
from florence2.labelling.records import AFTER, JOURNALS, STATE, Records, header_in
from florence2.labelling.shards import Shard, file_and_part
from florence2.outputs import check_folder

VERSION = 1
SYNC_EVERY_S = 1.0
_BLOCK = 65536
_NEVER_FOREIGN = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", "lost+found"})


class Journal:
    """A journal that is open; ``open_journal`` gives it.

    Args:
        path: the file, which may be new.
        header: its first line, written where it is new.
        before: the journals and parts of the folder as they were; None where there was none.
        last_part: the name of the last part of the folder, before which the lines to come count; None where there is none.

    Attributes:
        labelled: the pictures that were labelled before, by their ids, with the lengths of their files.
        places: the same by their files, as of ``Records``.
        changed: ids of those whose files have another length now; they are not held.
        notices: lines on what could not be read.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], before: Records | None, last_part: str | None = None) -> None:
        self.labelled: Mapping[str, int | None] = {} if before is None else before.lengths
        self.places: Mapping[str, int | None] = {} if before is None else before.places
        self.changed: set[str] = set()
        self.notices = [] if before is None else before.notices
        self._last_part = None if before is not None and before.after.get(path.name) == last_part else last_part
        self._path = path
        self._end = _cut_off(path)
        self._file: BinaryIO = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by close
        self._synced_at = 0.0
        self._is_synced = True
        if self._end == 0:
            self._write(header)
            self.sync()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record.

        Raises:
            OSError: it can't be written; the journal is as it was before.
        """
        if self._last_part is not None:
            self._write({AFTER: self._last_part})
            self._last_part = None
        self._write(record)
        self.sync_if_due()

    def holds(self, picture_id: str, path: str | None) -> bool:
        """Whether a picture was labelled before, under this name or another one of its file, and its file is as long as it was.

        Args:
            picture_id: its id.
            path: its file's absolute path; None where it is no file.
        """
        place = f"{path}{file_and_part(picture_id)[1]}"
        if picture_id not in self.labelled and place not in self.places:
            return False
        length = self.labelled[picture_id] if picture_id in self.labelled else self.places[place]
        if path is not None and length is not None and _length(path) not in (length, None):
            self.changed.add(picture_id)
            return False
        return True

    def sync_if_due(self) -> None:
        """Have the disk hold what was written, if that was last done a second ago."""
        if not self._is_synced and time.monotonic() - self._synced_at >= SYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Have the disk hold what was written."""
        os.fsync(self._file.fileno())
        self._synced_at, self._is_synced = time.monotonic(), True

    def close(self) -> None:
        """End it."""
        try:
            self.sync()
        finally:
            self._file.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=True).encode("ascii") + b"\n"
        try:
            written = self._file.write(line)
            while written < len(line):  # a disk that is about to be full takes the beginning
                written += self._file.write(line[written:])
        except OSError as error:
            os.truncate(self._path, self._end)
            said = f"{error.strerror or error}; all answers before this one are kept, and the same command goes on with the others"
            raise OSError(error.errno, said, str(self._path)) from error
        self._end += len(line)
        self._is_synced = False


@contextmanager
def open_journal(folder: Path, asked: Mapping[str, Any], model: str, shard: Shard | None = None) -> Iterator[Journal]:
    """The journal of a run for the length of a block, in which no other command writes to it.

    Args:
        folder: the run's output folder, made where there is none.
        asked: what decides the answers, as ``LabelOptions.asked``.
        model: the model's name.
        shard: the part of the pictures that this command labels, which has a journal of its own; None for all.

    Raises:
        InvalidOption: the folder can't be used, another command is at work in it, or something else is asked than before.
        DatasetError: a journal of the folder can't be read.
        OSError: the journal can't be written.
    """
    make_folder(folder)
    state = folder / STATE
    with _alone(folder, shard):
        path = state / ("journal.jsonl" if shard is None else f"journal-{shard.number}-of-{shard.count}.jsonl")
        parts = parts_in(folder)
        parts.clean(is_alone=shard is None)
        if shard is None:
            parts.forget()
        _forget(path)
        before = _before(folder, asked, model)
        last_part = max(parts.names(), default=None)
        journal = Journal(path, {"version": VERSION, "asked": dict(asked), "model": model}, before, last_part)
        try:
            yield journal
        finally:
            journal.close()


@contextmanager
def open_parts(folder: str, asked: Mapping[str, Any], model: str, shard: Shard | None = None) -> Iterator[PartsFolder]:
    """The parts of a run for the length of a block, in which no other command of this machine writes to it.

    Args:
        folder: the run's output folder, made where there is none; or a URL such as ``s3://bucket/run``, which knows no locks.
        asked: what decides the answers, as ``LabelOptions.asked``.
        model: the model's name.
        shard: the part of the pictures that this command labels; None for all.

    Raises:
        InvalidOption: the folder can't be used, another command is at work in it, or something else is asked than before.
        DatasetError: what is in it can't be read.
        OSError: it can't be written.
    """
    parts = parts_in(folder)
    with ExitStack() as locks:
        if not is_url(folder):
            make_folder(Path(folder))
            locks.enter_context(_alone(Path(folder), shard))
            if shard is None:
                _forget(Path(folder) / STATE / "journal.jsonl")
                parts.forget()
            _check_asked(Path(folder), asked, model)
        parts.clean(is_alone=shard is None and not is_url(folder))
        parts.begin(asked, model)
        yield parts


@contextmanager
def _alone(folder: Path, shard: Shard | None) -> Iterator[None]:
    """Hold the lock of a run's folder, or of one shard in it.

    Raises:
        InvalidOption: another command holds it.
    """
    state = folder / STATE
    with ExitStack() as locks:
        try:
            locks.enter_context(held(state / "lock", is_shared=shard is not None))
            if shard is not None:
                locks.enter_context(held(state / f"lock-{shard.number}-of-{shard.count}"))
        except Held:
            what = "this run" if shard is None else f"shard {shard} or the whole"
            said = f"another command is labelling {what} in {shown(folder)}; wait for its end, or end it"
            raise InvalidOption(said, field="output") from None
        yield


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a labelling run."""
    return any((folder / STATE).glob(JOURNALS)) or parts_in(folder).is_begun


def make_folder(folder: Path) -> None:
    """Make the folder of a run where there is none.

    Raises:
        InvalidOption: it can't be made or written, or holds something else.
    """
    check_folder(folder, "output")
    state = folder / STATE
    try:
        if folder.exists() and not state.is_dir():
            foreign = sorted(name for name in os.listdir(folder) if name not in _NEVER_FOREIGN)
            if foreign:
                raise InvalidOption(
                    f"{shown(folder)} holds other things than a labelling run ({shown(foreign[0])}); choose a new or an empty folder for "
                    f"output=, such as {shown(folder / 'labels')}",
                    field="output",
                )
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidOption(f"the folder {shown(folder)} can't be written: {error.strerror}", field="output") from error


def _before(folder: Path, asked: Mapping[str, Any], model: str) -> Records | None:
    """What the journals and parts of the folder hold already; None where there is none.

    Raises:
        InvalidOption: something else was asked about them.
    """
    return Records(folder) if _check_asked(folder, asked, model) else None


def _check_asked(folder: Path, asked: Mapping[str, Any], model: str) -> bool:
    """Whether anything was asked about pictures of the folder, which must have been the same.

    Raises:
        InvalidOption: it was something else.
    """
    header = header_in(folder)
    if header is not None and (changed := differences(header, asked, model)):
        raise refused(folder, changed)
    return header is not None


def _length(path: str) -> int | None:
    """How many bytes a file has; None where it can't be seen."""
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _forget(path: Path) -> None:
    """Remove a journal in which nothing was answered, so that anything may be asked."""
    if _cut_off(path) and _has_header_alone(path):
        path.unlink()


def _has_header_alone(path: Path) -> bool:
    with path.open("rb") as file:
        file.readline()
        return not file.read(1)


def _cut_off(path: Path) -> int:
    """The length of a journal after what is no whole line was cut off its end; 0 of one that is not there."""
    try:
        with path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            length = end
            while length:
                start = max(0, length - _BLOCK)
                file.seek(start)
                found = file.read(length - start).rfind(b"\n")
                if found >= 0:
                    length = start + found + 1
                    break
                length = start
            if length < end:
                file.truncate(length)
            return length
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}") from error
