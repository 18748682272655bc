"""Libraries in the user's cache folder: what was compiled on this machine, kept for the next process.

A file is read, compared with the digest in its name, and used only if it belongs to the user alone, so that a truncated, replaced or
changed file is never executed. In: names and contents. Out: contents. Compiles and loads nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from florence2.model.cpu.building import BUILDING, COMPILER_PATIENCE_S, MAX_LIBRARY_BYTES, content_digest


class NotUsable(Exception):
    """A library that must not be loaded; the message says why."""


def cache_folder() -> Path | None:
    """The folder for compiled libraries, in the user's cache; None if it is missing or others can write to it."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base) / "florence2"
    if not folder.is_absolute():  # no home
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except OSError:
        return None
    return folder if _is_own(status) and os.access(folder, os.W_OK) else None


def read(path: Path, *, must_be_own: bool = True) -> bytes:
    """The content of a library, compared with the digest in its name.

    Args:
        path: its file.
        must_be_own: whether it must belong to the user; what was installed with the package belongs to whoever installed it.

    Raises:
        NotUsable: it is not what was built, or others can write to it.
        OSError: it can't be read.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or (must_be_own and not _is_own(status)):
            raise NotUsable("no file that its user alone can write to")
        library = file.read(MAX_LIBRARY_BYTES + 1)
    if content_digest(library) != path.stem.rpartition("-")[2]:
        raise NotUsable("its content is not what was built")
    return library


def keep(library: bytes, path: Path) -> None:
    """Write a library into the cache atomically; if several processes do so at the same time, the last one stays.

    Raises:
        OSError: the disk is full, for example.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=BUILDING) as folder:
        new = Path(folder) / path.name
        new.touch(mode=0o600)
        new.write_bytes(library)
        new.replace(path)


def sweep(folder: Path) -> None:
    """Remove the folders of processes that were ended while they compiled."""
    for left in folder.glob(f"{BUILDING}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 2 * COMPILER_PATIENCE_S:
                shutil.rmtree(left)


def _is_own(status: os.stat_result) -> bool:
    """Whether the user owns the file or folder and nobody else can write to it."""
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
