"""The folder of the HAProxy that a Ray started here has, and that HAProxy's end when Ray can't see to it.

Ray starts HAProxy as a program of its own and ends it with Serve. A Ray that is killed leaves it behind, with the server's port. Its
command line names its file of configuration, which is in a folder that one ``florence2 cluster serve`` has for itself. Knows nothing of
Ray.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from florence2.file_locks import Held, held

PREFIX = "f2ray-"
LOCK = "lock"
SHORT = 9
"""So long may the path of a folder for temporary files be. Ray adds 57 characters to that of ours, HAProxy 26, and a socket has 107."""
END_S = 5.0
YOUNG_S = 1.0  # a folder that somebody has made just now, and not locked yet


@contextmanager
def folder_of_own() -> Iterator[Path]:
    """A folder for HAProxy's files, which nobody else may open; it goes at the end, with the HAProxy that uses it."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_place()))
    with held(folder / LOCK):
        try:
            yield folder
        finally:
            remove(folder)


def remove(folder: Path) -> list[int]:
    """End the HAProxy that uses a folder, if one does, and remove the folder.

    Returns:
        The processes that were ended.
    """
    ended = users_of(folder)
    for process in ended:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + END_S
    while users_of(folder) and time.monotonic() < deadline:
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)
    return ended


def remove_left_behind() -> list[int]:
    """Do so with the folders of runs that were killed.

    Returns:
        The processes that were ended.
    """
    ended: list[int] = []
    for lock in Path(_place()).glob(f"{PREFIX}*/{LOCK}"):
        with suppress(Held, OSError):
            status = lock.stat()
            if status.st_uid == _own_number() and time.time() - status.st_mtime > YOUNG_S:
                with held(lock):
                    ended += remove(lock.parent)
    return ended


def _place() -> str:
    """Where folders are made: sockets lie in them, whose paths are bounded."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= SHORT or not os.access("/tmp", os.W_OK) else "/tmp"  # nosec B108 # mkdtemp makes a folder of its own in it


def _own_number() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0  # as files have it on Windows


def users_of(folder: Path) -> list[int]:
    """The HAProxies whose configuration is in a folder. Only Linux says so: elsewhere there are none."""
    start = f"{folder}{os.sep}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            program, *arguments = entry.read_bytes().split(b"\0")
            if Path(os.fsdecode(program)).name == "haproxy" and any(one.startswith(start) for one in arguments):
                found.append(int(entry.parent.name))
    return found
