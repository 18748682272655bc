"""Names of pictures in a data set, so that each has its own on every file system.

In: for each picture its name below the folder that named it, that folder, and the suffix of the file with its pixels. Out: its name in the
data set. Pictures of several folders stand under the names of these. What differs in case, Unicode form or suffix alone would be one file,
or one label file: the second of them gets ``-2``. Opens no file.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from florence2.datasets.writers.names import portable_name

LONGEST_NAME_BYTES = 900  # of all parts together, far below what systems take with the folders above
LONGEST_PART_BYTES = 200  # of 255, for what writers and numbers add
_PATTERN = re.compile(r"[*?\[]")
_SUFFIX_CHARACTERS = 12


class Named(NamedTuple):
    """What the name of a picture is made of.

    Attributes:
        name: below the folder or pattern that named it, parts separated by ``/``.
        root: that folder or pattern, "" where there is none.
        suffix: of the file with its pixels.
    """

    name: str
    root: str
    suffix: str


def resolved(pictures: Iterable[Named]) -> list[str]:
    """The names of pictures in the data set, in the same order; of two that clash the later one gets a number."""
    given = list(pictures)
    has_several_roots = len({one.root for one in given if one.root}) > 1
    taken: set[str] = set()
    last: dict[str, int] = {}
    return [_free(_wanted(one, has_several_roots), taken, last) for one in given]


def _wanted(picture: Named, has_several_roots: bool) -> str:
    """The name that a picture would have if it were alone."""
    own = PurePosixPath(picture.name.replace("\\", "/"))
    suffix = picture.suffix if len(picture.suffix) <= _SUFFIX_CHARACTERS else ""
    stem = own.name if len(own.suffix) > _SUFFIX_CHARACTERS else own.stem
    folders = [*([_base(picture.root)] if has_several_roots else []), *own.parent.parts]
    parts = [_cut(part) for part in folders if part.strip("./ ")] + [(_cut(stem.strip(" ")) or "picture") + suffix]
    while len(parts) > 1 and len("/".join(parts).encode("utf-8", "replace")) > LONGEST_NAME_BYTES:
        parts = parts[1:]
    return portable_name(unicodedata.normalize("NFC", "/".join(parts)))


def _cut(part: str) -> str:
    """The part, cut where it is too long for a name."""
    return unicodedata.normalize("NFC", part).encode("utf-8", "replace")[:LONGEST_PART_BYTES].decode(errors="ignore")


def _base(root: str) -> str:
    """The last folder of a root that is no pattern."""
    parts = PurePosixPath(root.replace("\\", "/")).parts
    plain = [part for part in parts if not _PATTERN.search(part)]
    return plain[-1] if plain else ""


def _free(name: str, taken: set[str], last: dict[str, int]) -> str:
    """The name, with a number behind its stem where it is taken."""
    path = PurePosixPath(name)
    stem, number = str(path.with_suffix("")), last.get(_key(str(path.with_suffix(""))), 1)
    free = stem if number == 1 else f"{stem}-{number}"
    while _key(free) in taken:
        number += 1
        free = f"{stem}-{number}"
    taken.add(_key(free))
    last[_key(stem)] = number
    return free + path.suffix


def _key(stem: str) -> str:
    """What two stems have in common that are one file somewhere."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", stem).casefold())
