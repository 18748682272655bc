"""New files: nothing that a command writes takes the place of something that was there.

Where a command chooses the name, a number makes it a new one (``scene-od.png``, ``scene-od-2.png``); where the user did, a
name that is taken is refused before anything long begins. A file whose writing fails is removed. Knows nothing of contents.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from florence2.errors import InvalidOption

LONGEST_NAME_BYTES = 255


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
    """The folder, made; with a number behind its name where there is one with something in it."""
    number, chosen = 1, folder
    while os.path.exists(chosen) and not is_empty(chosen):
        number += 1
        chosen = folder.with_name(_name(folder.name, "", number, ""))
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def check_new(path: Path, field: str) -> None:
    """Refuse a file that could not be written later, or only over what is there.

    Args:
        path: the file; one that is empty counts as new, and a device or pipe can always be written.
        field: the option that named it.

    Raises:
        InvalidOption: something is there, or nothing can be.
    """
    if os.path.isdir(path):
        raise InvalidOption(f"{path} is a folder; give the name of a new file", field=field)
    if os.path.exists(path) and not is_empty(path) and not _is_device(path):
        raise InvalidOption(f"{path} is there already and is not written over: give another name, or remove it first", field=field)
    try:
        if os.path.exists(path):
            if not os.access(path, os.W_OK):
                raise PermissionError(0, "no permission to write it")
        else:
            with path.open("xb"):
                pass
            path.unlink()
    except OSError as error:
        raise InvalidOption(f"{path} can't be written: {error.strerror}", field=field) from error


def check_folder(folder: Path, field: str) -> None:
    """Refuse a folder that can't be made or written, without making it.

    Raises:
        InvalidOption: what is in the way.
    """
    nearest = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not os.path.isdir(nearest):
        raise InvalidOption(f"the folder {folder} can't be made: {nearest} is no folder", field=field)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InvalidOption(f"the folder {folder} can't be written: no permission for {nearest}", field=field)


def write_new(path: Path, text: str) -> Path:
    """Write a text, as UTF-8, under a name that ``check_new`` found good, and give back the name: another one got there first otherwise.

    Raises:
        OSError: it can't be written.
    """
    content = text.encode("utf-8", "backslashreplace")
    try:
        if os.path.exists(path) and (is_empty(path) or _is_device(path)):
            with path.open("ab") as file:  # not from the start: standard output, by its name, may hold something already
                file.write(content)
            return path
        with NewFiles(path.parent).create(path.stem, path.suffix) as file:
            file.write(content)
    except OSError as error:  # a failed write does not know its file
        raise OSError(error.errno, error.strerror, str(path)) from error
    return Path(file.name)


def is_empty(path: Path) -> bool:
    """Whether nothing would be lost if this file or folder were written over."""
    if os.path.isdir(path):
        return next(path.iterdir(), None) is None
    return os.path.isfile(path) and path.stat().st_size == 0


def _is_device(path: Path) -> bool:
    """Whether something is there that is written to and keeps nothing of its own: a device, a pipe, a socket."""
    if path.parts[1:2] in (("dev",), ("proc",)):  # standard output by its name, which a shell may have led to a file
        return True
    mode = path.stat().st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _name(stem: str, kind: str, number: int, suffix: str) -> str:
    """A file's name, its stem cut where it would be longer than a name can be."""
    end = f"{kind}{suffix}" if number == 1 else f"{kind}-{number}{suffix}"
    while len(os.fsencode(stem + end)) > LONGEST_NAME_BYTES:
        stem = stem[:-1]
    return stem + end
