"""Lists of images: names in a file or on standard input, one a line, or parted by NUL bytes; or a column of a table.

In: the list's name. Out: the names in it, as they stand there; those that are only in the list's own folder with that folder before them.
Lists of Windows (UTF-16 or UTF-8 with a byte order mark, CRLF) are read as others; names that are no UTF-8 keep their bytes. Knows nothing
of images.
"""

from __future__ import annotations

import codecs
import os
import sys
from pathlib import Path

from florence2.console import shown
from florence2.errors import InvalidRequest
from florence2.image_files import is_read
from florence2.inputs.tables import is_table, read_table

STDIN = "-"
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
    try:
        if is_table(name) and not os.path.isdir(name):
            return _beside(name, read_table(name, column))
        content = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    except InvalidRequest:  # which is a ValueError, too
        raise
    except FileNotFoundError:
        raise InvalidRequest(f"there is no list {shown(name)!r}; the current folder is {shown(os.getcwd())!r}", field="lists") from None
    except IsADirectoryError:
        raise InvalidRequest(f"{shown(name)} is a folder; give it without --list, or a file with names", field="lists") from None
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"the list {shown(name)} can't be read: {getattr(error, 'strerror', None) or error}", field="lists") from error
    if is_read(content[:64]):
        hint = "- without --list" if name == STDIN else "it without --list"
        raise InvalidRequest(f"the list {shown(name)} is a picture, expected names one a line; give {hint}", field="lists")
    text = _decoded(content)
    names = text.split("\0") if "\0" in text else [line.removesuffix("\r") for line in text.split("\n")]
    return _beside(name, [name for name in names if name.strip()])


def _beside(name: str, named: list[str]) -> list[str]:
    """The names; one of a file that is not in the current folder, but in the list's, has that folder before it."""
    folder = os.path.dirname(name)
    if not folder:
        return named
    besides = [os.path.join(folder, one) for one in named]
    is_beside = [not os.path.lexists(one) and os.path.lexists(beside) for one, beside in zip(named, besides, strict=True)]
    return [beside if there else one for one, beside, there in zip(named, besides, is_beside, strict=True)]


def _decoded(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    return os.fsdecode(content)
