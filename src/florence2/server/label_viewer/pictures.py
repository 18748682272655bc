"""Copies of the pictures of a run, as a browser shows them: small ones for the grid, and large ones.

In: the file of a picture. Out: a JPEG, upright as the model saw it, whatever format the file has; never the file itself. Small copies are
kept in memory within bounds, and made anew where a file has changed. Knows no HTTP.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from pathlib import Path

from florence2.labelling.thumbnails import read_thumbnail

SMALL_SIDE = 384
LARGE_SIDE = 4096
MAX_KEPT_BYTES = 64 * 2**20
SMALL_QUALITY, LARGE_QUALITY = 80, 93

Stamp = tuple[int, int]


class Copies:
    """Small copies that were made, the last used ones kept."""

    def __init__(self, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._kept: OrderedDict[tuple[str, Stamp], bytes] = OrderedDict()
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._lock = threading.Lock()

    def small(self, file: str, stamp: Stamp) -> bytes:
        """The small copy of a file's picture.

        Args:
            file: its path.
            stamp: what ``stamp_of`` gave.

        Raises:
            InvalidImage: the file is gone or holds no readable picture.
            OutOfMemory: there is not enough memory to decode it.
        """
        with self._lock:
            if (file, stamp) in self._kept:
                self._kept.move_to_end((file, stamp))
                return self._kept[file, stamp]
        made = _jpeg(file, SMALL_SIDE, SMALL_QUALITY)
        with self._lock:
            self._num_bytes += len(made) - len(self._kept.pop((file, stamp), b""))
            self._kept[file, stamp] = made
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= len(self._kept.popitem(last=False)[1])
        return made


def large(file: str) -> bytes:
    """A copy of a file's picture in its own size, or smaller where that is very large.

    Raises:
        InvalidImage: the file is gone or holds no readable picture.
        OutOfMemory: there is not enough memory to decode it.
    """
    return _jpeg(file, LARGE_SIDE, LARGE_QUALITY)


def stamp_of(file: str) -> Stamp | None:
    """Time of change and size of a file; None where it is gone."""
    try:
        status = Path(file).stat()
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size


def _jpeg(file: str, side: int, quality: int) -> bytes:
    buffer = io.BytesIO()
    subsampling = 0 if quality == LARGE_QUALITY else 2
    read_thumbnail(Path(file), side).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()
