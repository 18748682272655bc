"""Whether a folder that was written is still as it was: corrections by hand in it must not be lost.

In: a folder. Out: a fingerprint of the names, sizes and times of its files, and names for folders that are kept. Left out are what systems
and training tools leave there (hidden files, caches). Pictures that may be links count by their names alone, because all else of them
changes with their originals: also how many links a file has, once an original is removed or the folder is copied. Knows no formats.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_CACHES = (".cache", ".npy")
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def fingerprint(folder: Path, *, are_linked: bool) -> str:
    """What changes when somebody changes, adds or removes a file below the folder; the same for a folder that was only moved.

    Args:
        folder: what was written.
        are_linked: whether its pictures were linked, where that could be done.
    """
    digest = hashlib.sha256()
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(names):
            if name.startswith(".") or name.endswith(_CACHES):
                continue
            path = os.path.join(base, name)
            digest.update(os.fsencode(f"{os.path.relpath(path, folder)}\0"))
            if not (os.path.islink(path) or (are_linked and name.lower().endswith(_PICTURES))):
                status = os.lstat(path)
                digest.update(f"{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def new_name(folder: Path, stem: str) -> Path:
    """A path in the folder that nothing has: the stem, with a number where that is taken."""
    number, path = 1, folder / stem
    while os.path.lexists(path):
        number += 1
        path = folder / f"{stem}-{number}"
    return path
