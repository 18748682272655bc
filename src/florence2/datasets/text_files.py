"""Text files of data sets: descriptions, lists of names and labels.

In: a path and the most bytes that such a file can have. Out: its text, whichever of the Unicode encodings it is in, with or without a
byte order mark. Knows nothing of what texts mean.
"""

from __future__ import annotations

import codecs
from pathlib import Path

from florence2.errors import DatasetError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def text_of(path: Path, most_bytes: int) -> str:
    """A file's whole text; arguments and errors as in ``bytes_of``, and where it is not UTF-8 or what its mark says."""
    content = bytes_of(path, most_bytes)
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise DatasetError(f"{path} is not {name} (at byte {error.start}: {error.reason}); save the file as UTF-8") from None


def bytes_of(path: Path, most_bytes: int) -> bytes:
    """A file's whole content.

    Args:
        path: the file's.
        most_bytes: a larger one is refused.

    Raises:
        DatasetError: it can't be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}") from error
    if len(content) > most_bytes:
        raise DatasetError(f"{path} is larger than {most_bytes >> 20} MiB, which no such file is")
    return content
