"""Records of parts as lines of a file that nobody sees, so that they can be read in any order without unpacking columns each time.

In: lines. Out: the place of each, and the lines again. The file is the system's to remove, however the process ends. Knows no records.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from pathlib import Path


class Unpacked:
    """A file of lines; threads may read it at once.

    Args:
        folder: where it is put if that can be written, so that it has as much room as the run itself; else with other temporary files.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed when nobody reads it any more
        except OSError:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._lock = threading.Lock()
        self._end = 0
        weakref.finalize(self, self._file.close)

    def append(self, line: bytes) -> int:
        """Write a line, and return where it stands."""
        with self._lock:
            start = self._file.seek(self._end)
            self._file.write(line)
            self._end += len(line)
            return start

    def read(self, offset: int, num_bytes: int) -> bytes:
        """The line that stands there."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(num_bytes)
