"""Pictures of records, and the picture files that a data set names.

In: a folder and a name as some other system wrote it. Out: the file that is meant, and the size of its upright picture, which is
read to its end once. Backslashes between folders are read as slashes, and letters with accents are found in either Unicode form.
Knows nothing of what the pictures are for.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Protocol

from PIL import Image

from florence2.errors import InvalidImage
from florence2.images import read_image

Size = tuple[int, int]


class Picture(Protocol):
    """A picture that is opened when it is needed.

    Two records ask about the same picture where their pictures are equal; ``str(picture)`` names it in messages.
    """

    def open(self) -> Image.Image:
        """The upright picture in RGB.

        Raises:
            InvalidImage: there is no such file, or it holds no readable image.
        """
        ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class FilePicture:
    """A picture in a file.

    Attributes:
        path: the file's.
    """

    path: Path

    def open(self) -> Image.Image:
        """The upright picture in RGB; errors as in ``Picture.open``."""
        return read_image(self.path)

    def __str__(self) -> str:
        return str(self.path)


MOVED = "images whose absolute path leads nowhere, found by its last parts"
_FOLDERS = ("images", "data", "JPEGImages")
_LAST_WORD = re.compile(r"[^._-]*$")


def folder_of_pictures(file: Path, names: Iterable[str]) -> Path:
    """The folder that the names of pictures in a data file are relative to: its own, or one of those in which exporters put them.

    For ``annotations/instances_train2017.json`` that is ``train2017`` or ``images/train2017`` beside ``annotations``, too.

    Args:
        file: the data file.
        names: some of the names in it.
    """
    here, above = file.parent, file.parent.parent
    inner, beside = ([place / name for name in _FOLDERS] for place in (here, above))
    word = _LAST_WORD.findall(file.stem)[0]
    parts = [place / word for place in (*inner, here, *beside, above)]
    known = list(names)
    for folder in (here, *inner, *parts, *beside, above):
        pictures = Pictures(folder)
        if any(os.path.exists(pictures.find(name)) for name in known):
            return folder
    return here


class Pictures:
    """The pictures of one data set.

    Args:
        folder: what their names are relative to.

    Attributes:
        moved: paths of another machine, of which the last parts were found in the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.moved: set[str] = set()
        self._sizes: dict[Path, Size | str] = {}
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def __len__(self) -> int:
        """How many were looked at."""
        return len(self._sizes)

    def find(self, name: str) -> Path:
        """The file of that name; where there is none, the path at which it is missing."""
        literal = self.folder / name
        if os.path.exists(literal):
            return literal
        spellings = dict.fromkeys((name, name.replace("\\", "/")))
        found = next((path for spelling in spellings if (path := self._walk(spelling)) is not None), None)
        return found or self._moved(name) or literal

    def _moved(self, name: str) -> Path | None:
        """What an absolute path of another machine leads to by its last parts."""
        written = PureWindowsPath(name)
        parts = written.parts[1:] if written.root else ()
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        found = next((path for tail in tails if (path := self._walk(tail)) is not None), None)
        if found is not None:
            self.moved.add(name)
        return found

    def size(self, path: Path) -> Size:
        """The width and height of the upright picture in pixels.

        Raises:
            InvalidImage: there is no such file, or it holds no readable picture; each time.
        """
        if path not in self._sizes:
            try:
                self._sizes[path] = read_image(path).size
            except InvalidImage as error:
                self._sizes[path] = error.message
        known = self._sizes[path]
        if isinstance(known, str):
            raise InvalidImage(known, field="image")
        return known

    def _walk(self, name: str) -> Path | None:
        """The file that a name leads to, folder by folder, in whatever Unicode form each part is written."""
        path = self.folder
        for part in PurePosixPath(name).parts:
            if not os.path.exists(path / part):
                same = self._listing(path).get(unicodedata.normalize("NFC", part), [])
                if len(same) != 1:
                    return None
                part = same[0]
            path = path / part
        return path

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        """The names in a folder by their composed form."""
        if folder not in self._listings:
            names: dict[str, list[str]] = {}
            try:
                for name in os.listdir(folder):
                    names.setdefault(unicodedata.normalize("NFC", name), []).append(name)
            except OSError:  # no folder, or none that may be read: then nothing is found in it
                pass
            self._listings[folder] = names
        return self._listings[folder]
