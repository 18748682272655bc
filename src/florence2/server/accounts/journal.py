"""The journal of one process: a line for each finished request, in files that are there after ``kill -9``.

Every process has a name of its own in the folder, and holds the lock of that name as long as it lives; so others can tell whose files are
left over. A line is one ``write`` to a file that is open already. Knows nothing of what the lines say.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from uuid import uuid4

from florence2.errors import InvalidOption
from florence2.file_locks import Held, held

logger = logging.getLogger(__name__)

PART, LOCK = ".part", ".lock"


class Journal:
    """The journal of this process.

    Args:
        folder: where the journals of all processes are that write to one database; made where it is not there.

    Raises:
        InvalidOption: the folder can't be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = uuid4().hex
        self._lock = threading.Lock()
        self._number = 0
        self._is_torn = False
        self._held = ExitStack()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = folder / f".{self.name}.new"
            self._held.enter_context(held(new))
            new.rename(folder / f"{self.name}{LOCK}")  # nobody sees it before it is locked
            self._path, self._file = self._new_part()
        except OSError as error:
            reason = f"the journal of usage can't be written to {str(folder)!r}: {error.strerror}"
            raise InvalidOption(f"{reason}; name another folder in the setting journal_folder", field="journal_folder") from None

    def append(self, line: bytes) -> bool:
        """Write a line; False: it could not be written, as where the disk is full."""
        with self._lock:
            data = b"\n" + line if self._is_torn else line
            try:
                written = os.write(self._file, data)
            except OSError:
                return False
            # What is cut off is no line; the next one begins behind an end of line.
            self._is_torn = written < len(data)
            return not self._is_torn

    def cut(self) -> None:
        """Go on in a new file, if there is anything in this one."""
        with self._lock:
            if not os.fstat(self._file).st_size:
                return
        try:
            path, file = self._new_part()
        except OSError as error:
            logger.error("the journal of usage can't go on in a new file: %s", error.strerror)
            return
        with self._lock:
            old, self._path, self._file, self._is_torn = self._file, path, file, False
        os.close(old)

    def parts(self) -> list[Path]:
        """The files of this process that are not written to any more, the oldest first."""
        return [path for path in _parts_of(self._folder, self.name) if path != self._path]

    def abandoned(self) -> Iterator[list[Path]]:
        """The files of each process that has ended without removing them, its lock held meanwhile; those that are left then stay."""
        names = {path.name.partition("-")[0] for path in self._folder.glob(f"*-*{PART}")} | {p.stem for p in self._folder.glob(f"*{LOCK}")}
        for name in sorted(names - {self.name}):
            lock = self._folder / f"{name}{LOCK}"
            with suppress(Held, OSError), held(lock):
                yield _parts_of(self._folder, name)
                if not _parts_of(self._folder, name):
                    lock.unlink(missing_ok=True)

    def close(self) -> None:
        """End; a file with lines in it stays, all else goes."""
        with self._lock:
            size = os.fstat(self._file).st_size
            os.close(self._file)
            self._file = -1  # a request that ends later writes to no file that has the same number by then
        if not size:
            self._path.unlink(missing_ok=True)
        if not _parts_of(self._folder, self.name):
            (self._folder / f"{self.name}{LOCK}").unlink(missing_ok=True)
        self._held.close()

    def _new_part(self) -> tuple[Path, int]:
        self._number += 1
        path = self._folder / f"{self.name}-{self._number:08}{PART}"
        return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)


def _parts_of(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}-*{PART}"))
