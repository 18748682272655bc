"""Lists of images: names in a file or on standard input, one a line, or parted by NUL bytes; or a column of a table.

In: the list's name. Out: the names in it, as they stand there; those that are only in the list's own folder with that folder before them.
Lists of Windows (UTF-16 or UTF-8 with a byte order mark, CRLF) are read as others; names that are no UTF-8 keep their bytes. Knows nothing
of images.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from florence2.console import shown
from florence2.errors import InvalidRequest
from florence2.image_files import is_read
from florence2.inputs.tables import is_table, iter_table

STDIN = "-"
_SHORT_BYTES = 64 * 2**20
"""Longer lists of lines are not held as a whole."""
_BLOCK_BYTES = 2**20
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def is_list(word: str) -> bool:
    """Whether a word names a list, ``@FILE`` or a table, rather than an image."""
    if word.startswith("@") and len(word) > 1 and not os.path.lexists(word):
        return True
    return is_table(word) and os.path.isfile(word)


def list_name(word: str) -> str:
    """The list's name in a word for which ``is_list`` holds."""
    return word if os.path.lexists(word) else word[1:]


def read_list(name: str, column: str | None = None) -> list[str]:
    """The names in a list; empty lines are none.

    Args:
        name: a file, or ``-`` for standard input. It is a table where it is named so.
        column: of a table, the column's name; None for the first that is known to hold images.

    Raises:
        InvalidRequest: it can't be read, is a picture, or has no such column.
        MissingExtra: the reader of such tables is not installed.
    """
    return list(iter_list(name, column))


def iter_list(name: str, column: str | None = None) -> Iterator[str]:
    """The names in a list as ``read_list`` has them, read as they are taken; arguments and errors are those of it."""
    with _complained(name):
        if is_table(name) and not os.path.isdir(name):
            yield from _beside(name, iter_table(name, column))
        elif name != STDIN and os.path.isfile(name) and os.path.getsize(name) > _SHORT_BYTES and _separator(name):
            yield from _beside(name, _long_text(name))
        else:
            yield from _beside(name, _text(name))


@contextmanager
def _complained(name: str) -> Iterator[None]:
    """Say what is wrong with a list where it can't be read."""
    try:
        yield
    except InvalidRequest:  # which is a ValueError, too
        raise
    except FileNotFoundError:
        raise InvalidRequest(f"there is no list {shown(name)!r}; the current folder is {shown(os.getcwd())!r}", field="lists") from None
    except IsADirectoryError:
        raise InvalidRequest(f"{shown(name)} is a folder; give it without --list, or a file with names", field="lists") from None
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"the list {shown(name)} can't be read: {getattr(error, 'strerror', None) or error}", field="lists") from error


def _text(name: str) -> list[str]:
    """The names in a list of lines."""
    content = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    if is_read(content[:64]):
        hint = "- without --list" if name == STDIN else "it without --list"
        raise InvalidRequest(f"the list {shown(name)} is a picture, expected names one a line; give {hint}", field="lists")
    text = _decoded(content)
    names = text.split("\0") if "\0" in text else [line.removesuffix("\r") for line in text.split("\n")]
    return [name for name in names if name.strip()]


def _separator(name: str) -> bytes:
    """What parts the names of a long list; empty for one that has to be read as a whole (a picture, UTF-16)."""
    with open(name, "rb") as file:
        start = file.read(_BLOCK_BYTES)
    if is_read(start[:64]) or start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return b""
    return b"\0" if b"\0" in start else b"\n"


def _long_text(name: str) -> Iterator[str]:
    """The names in a list of lines, a block of the file at a time."""
    separator = _separator(name)
    with open(name, "rb") as file:
        rest = file.read(len(codecs.BOM_UTF8))
        rest = b"" if rest == codecs.BOM_UTF8 else rest
        while block := file.read(_BLOCK_BYTES):
            *whole, rest = (rest + block).split(separator)
            yield from filter(str.strip, (os.fsdecode(one.removesuffix(b"\r")) for one in whole))
        if rest.strip():
            yield os.fsdecode(rest.removesuffix(b"\r"))


def _beside(name: str, named: Iterable[str]) -> Iterator[str]:
    """The names; one of a file that is not in the current folder, but in the list's, has that folder before it."""
    folder = os.path.dirname(name)
    for one in named:
        beside = os.path.join(folder, one)
        yield beside if folder and not os.path.lexists(one) and os.path.lexists(beside) else one


def _decoded(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    return os.fsdecode(content)
