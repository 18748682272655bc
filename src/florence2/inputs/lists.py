"""Lists of images: names in a file or on standard input, one a line, or parted by NUL bytes.

In: the list's name. Out: the names in it, as they stand there. Lists of Windows (UTF-16 or UTF-8 with a byte order mark, CRLF) are read
as others; names that are no UTF-8 keep their bytes. Knows nothing of images.
"""

from __future__ import annotations

import codecs
import os
import sys
from pathlib import Path

from florence2.console import shown
from florence2.errors import InvalidRequest
from florence2.image_files import is_read

STDIN = "-"
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def is_list(word: str) -> bool:
    """Whether a word names a list, ``@FILE``, rather than an image."""
    return word.startswith("@") and len(word) > 1 and not os.path.lexists(word)


def read_list(name: str) -> list[str]:
    """The names in a list; empty lines are none.

    Args:
        name: a file, or ``-`` for standard input.

    Raises:
        InvalidRequest: it can't be read, or is a picture.
    """
    try:
        content = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
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
    return [name for name in names if name.strip()]


def _decoded(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    return os.fsdecode(content)
