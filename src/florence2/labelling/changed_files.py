"""Whether a folder that was written is still as it was: corrections by hand in it must not be lost.

In: a folder. Out: a fingerprint of the names, sizes and times of its files, and names for folders that are kept. Left out are what systems
and training tools leave there (hidden files, caches), and pictures that are links, which change with their originals. Knows no formats.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def fingerprint(folder: Path) -> str:
    """What changes when somebody changes, adds or removes a file below the folder; the same for a folder that was only moved."""
    digest = hashlib.sha256()
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(names):
            path = os.path.join(base, name)
            status = os.lstat(path)
            if name.startswith(".") or name.endswith(".cache") or status.st_nlink > 1 or os.path.islink(path):
                continue
            digest.update(os.fsencode(f"{os.path.relpath(path, folder)}\0{status.st_size}\0{status.st_mtime_ns}\0"))
    return digest.hexdigest()


def new_name(folder: Path, stem: str) -> Path:
    """A path in the folder that nothing has: the stem, with a number where that is taken."""
    number, path = 1, folder / stem
    while os.path.lexists(path):
        number += 1
        path = folder / f"{stem}-{number}"
    return path
