"""New files: no command overwrites a file that exists.

A command is given a folder and chooses the names in it: a number makes a new one of one that is taken (``scene-od.png``,
``scene-od-2.png``). A folder that can't be is refused before anything long begins, and so is a URL, which would become a local folder named
``s3:``. A file whose writing fails is removed. Knows nothing of contents.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from florence2.errors import InvalidOption

LONGEST_NAME_BYTES = 255
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
"""How URLs begin, also those that have been a ``Path``, which has one slash left; a drive of Windows has one letter."""


class NewFiles:
    """Files in a folder, each under a name that nothing has, of this run or of another one at the same time.

    Args:
        folder: one that is there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: dict[tuple[str, str, str], int] = {}

    @contextmanager
    def create(self, stem: str, suffix: str, kind: str = "") -> Iterator[BinaryIO]:
        """A new file to write, named ``stem``, ``kind``, and ``suffix``; where that is taken, with a number before the suffix.

        A stem that makes the name longer than a name can be is cut.

        Raises:
            OSError: it can't be made or written.
        """
        file = self._created(stem, suffix, kind)
        try:
            with file:
                yield file
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise

    def _created(self, stem: str, suffix: str, kind: str) -> BinaryIO:
        number = self._last.get((stem, suffix, kind), 0)
        while True:
            number += 1
            self._last[stem, suffix, kind] = number
            try:
                return (self._folder / _name(stem, kind, number, suffix)).open("xb")
            except FileExistsError:
                continue


def new_folder(folder: Path) -> Path:
    """The folder, made; with a number behind its name where there is one with something in it.

    Raises:
        InvalidOption: it is a URL.
    """
    refuse_url(folder, "folder")
    number, chosen = 1, folder
    while os.path.exists(chosen) and not is_empty(chosen):
        number += 1
        chosen = folder.with_name(_name(folder.name, "", number, ""))
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def check_folder(folder: Path, field: str) -> None:
    """Refuse a folder that can't be made or written, without making it.

    Raises:
        InvalidOption: what is in the way, or the folder is a URL.
    """
    refuse_url(folder, field)
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(nearest):
        raise InvalidOption(f"the folder {folder} can't be made: {nearest} is no folder", field=field)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InvalidOption(f"the folder {folder} can't be written: no permission for {nearest}", field=field)


def refuse_url(folder: str | os.PathLike[str], field: str, otherwise: str = "") -> None:
    """Refuse a folder that is named by a URL, such as ``s3://bucket/run``.

    Args:
        folder: as it was given, a path or URL.
        field: the option's name.
        otherwise: what takes a URL, if anything does.

    Raises:
        InvalidOption: it is a URL.
    """
    name = os.fspath(folder)
    if (found := _URL.match(name)) is not None:
        url = f"{found[1]}://{name[found.end() :]}"
        raise InvalidOption(f"{field} must be a folder of this machine, such as /data/out{otherwise}; got the URL {url}", field=field)


def write_new(folder: Path, stem: str, suffix: str, text: str) -> Path:
    """Write a text, as UTF-8, to a new file in a folder, which is made if need be, and return the file's path.

    Raises:
        OSError: it can't be written; the error names where.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NewFiles(folder).create(stem, suffix) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    except OSError as error:  # a failed write does not know its file
        raise OSError(error.errno, error.strerror, str(error.filename or folder / f"{stem}{suffix}")) from error
    return Path(file.name)


def is_empty(path: Path) -> bool:
    """Whether nothing would be lost if this file or folder were written over."""
    if os.path.isdir(path):
        return next(path.iterdir(), None) is None
    return os.path.isfile(path) and path.stat().st_size == 0


def _name(stem: str, kind: str, number: int, suffix: str) -> str:
    """A file's name, its stem cut where it would be longer than a name can be."""
    end = f"{kind}{suffix}" if number == 1 else f"{kind}-{number}{suffix}"
    while len(os.fsencode(stem + end)) > LONGEST_NAME_BYTES:
        stem = stem[:-1]
    return stem + end
