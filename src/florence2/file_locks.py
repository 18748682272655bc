"""Locks on files that end with the process that holds them, however it ends.

In: a file's path. Out: the lock, for as long as a block lasts. The system frees the lock of a process that was killed, so that nobody has
to remove a file. A file system that knows no locks lets everybody in. Knows nothing of what is locked.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})


class Held(Exception):
    """Another process holds the lock."""


@contextmanager
def held(path: Path, *, is_shared: bool = False, is_waited_for: bool = False) -> Iterator[None]:
    """Hold the lock of a file, which is made where there is none.

    Args:
        path: the file; it stays.
        is_shared: others may hold it as well, if they share it too. Windows knows no such lock, and everybody gets it there.
        is_waited_for: wait until it is free.

    Raises:
        Held: another process holds it.
        OSError: the file can't be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            _lock(descriptor, is_shared=is_shared, is_waited_for=is_waited_for)
        except OSError as error:
            if error.errno in _HELD:
                raise Held(str(path)) from error
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, is_shared: bool, is_waited_for: bool) -> None:
    """Lock an open file, or raise ``OSError``. Modules of one system alone are imported where they are used."""
    if sys.platform == "win32":
        import msvcrt

        while not is_shared:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_LOCK if is_waited_for else msvcrt.LK_NBLCK, 1)
                return
            except OSError as error:  # LK_LOCK itself gives up after ten seconds
                if not is_waited_for or error.errno not in _HELD:
                    raise
    else:
        import fcntl

        fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | (0 if is_waited_for else fcntl.LOCK_NB))
