"""Names of classes as users write them: lists, files with one a line, and maps from names to other names.

In: words of flags, or a file. Out: names that a model can be asked for and formats can hold: one line, no ``<``, each once. Two names that
differ in case or in spaces are one class, under the first spelling. Knows no pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from florence2.errors import DatasetError, InvalidOption

LONGEST_CLASS = 200
# What XML can't hold, or no UTF-8; tabs and line ends may stay in texts.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_ARTICLE = re.compile(r"(?:an?|the|some)\s+", re.IGNORECASE)
_AROUND = " \t\r\n.,;:!?\"'()[]{}\u00ab\u00bb\u201c\u201d\u2018\u2019\u2026"


def writable(text: str) -> str:
    """The text with a space for each control character and half of a surrogate pair, which files of some formats can't hold."""
    return _UNWRITABLE.sub(" ", text)


def plain(name: str) -> str:
    """A name on one line, without what would end a label in an answer: runs of spaces are one, and there is no ``<``."""
    return " ".join(writable(name).replace("<", " ").split())


def key_of(name: str) -> str:
    """What two spellings of one class have in common."""
    return plain(name).casefold()


def phrase_class(phrase: str) -> str:
    """The class that a phrase of a caption is taken for: no article, no punctuation around it, lower case; "A red car," is "red car"."""
    name = plain(phrase).strip(_AROUND)
    return _ARTICLE.sub("", name, count=1).lower() if _ARTICLE.match(name) else name.lower()


def split_classes(words: str) -> list[str]:
    """The names in a list that is separated by commas; a comma too many at its end is no name."""
    names = words.split(",")
    return names[:-1] if len(names) > 1 and not names[-1].strip() else names


def read_classes_file(path: Path) -> list[str]:
    """The names in a text file: one a line; empty lines and those that begin with ``#`` are none.

    Raises:
        InvalidOption: it can't be read, or there is no name in it.
    """
    from florence2.datasets.json_files import text_of

    try:
        lines = text_of(path).removeprefix("\ufeff").splitlines()
    except DatasetError as error:
        raise InvalidOption(error.message, field="classes_file") from error
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not names:
        raise InvalidOption(f"{path} names no class; write one a line", field="classes_file")
    return names


def merged(names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes, each once in its first spelling, and a notice for those that came again.

    Raises:
        InvalidOption: a name is empty, too long, or holds ``<``.
    """
    if isinstance(names, str):
        names = split_classes(names)
    found: dict[str, str] = {}
    again: list[str] = []
    for given in names:
        name = _checked("classes", given)
        if not name:
            raise InvalidOption(
                "classes holds an empty name; write names separated by commas, such as 'car, traffic light'", field="classes"
            )
        if found.setdefault(key_of(name), name) is not name:
            again.append(name)
    shown = ", ".join(repr(name) for name in again[:5]) + (", …" if len(again) > 5 else "")
    return tuple(found.values()), (f"classes that are named again count once: {shown}",) if again else ()


def read_class_map(given: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """New names by the old ones' keys (``key_of``); "" for classes that are left out.

    Args:
        given: names by names, or words such as "truck=car", "person=".

    Raises:
        InvalidOption: a word without "=", an old name that is empty or comes twice, or a new one that can't be a class.
    """
    pairs = list(given.items()) if isinstance(given, Mapping) else [_pair(word) for word in given]
    found: dict[str, str] = {}
    for old, new in pairs:
        key = key_of(old)
        if not key:
            raise InvalidOption(
                "class_map holds an empty name before its '='; write OLD=NEW, or OLD= to leave a class out", field="class_map"
            )
        if found.setdefault(key, name := _checked("class_map", new)) != name:
            raise InvalidOption(
                f"class_map names {plain(old)!r} twice, as {found[key]!r} and as {name!r}; leave one out", field="class_map"
            )
    return found


def _pair(word: str) -> tuple[str, str]:
    old, equals, new = word.partition("=")
    if not equals:
        raise InvalidOption(f"class_map takes OLD=NEW, or OLD= to leave a class out; got {word!r}", field="class_map")
    return old, new


def _checked(field: str, given: str) -> str:
    if not isinstance(given, str):
        raise InvalidOption(f"{field} must be names, got {given!r}", field=field)
    name = " ".join(given.split())
    if "<" in name or len(name) > LONGEST_CLASS or _UNWRITABLE.search(name):
        wanted = f"names of at most {LONGEST_CLASS} characters, without '<' and without control characters"
        raise InvalidOption(f"{field} must be {wanted}; got {name[:80]!r}", field=field)
    return name
