"""JSON files as other systems write them.

In: a path. Out: its lines or its content, whichever of the Unicode encodings it is in, with or without a byte order mark.
Numbers with a point keep how they were written, because an answer that is a number is a text: 4.50 stays 4.50.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from florence2.errors import DatasetError

_LINES_LOOKED_AT = 20


class Written(float):
    """A number of a JSON file, with its digits as they stand there."""

    def __new__(cls, digits: str) -> Written:
        """The number that the digits mean."""
        number = super().__new__(cls, digits)
        number.digits = digits
        return number

    digits: str


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file in UTF-8.

    Raises:
        DatasetError: it can't be read, or is in UTF-16 or UTF-32 and damaged.
    """
    try:
        with path.open("rb") as file:
            encoding = _encoding(file.read(4))
            file.seek(0)
            if not encoding.startswith("utf-8"):
                encoding = _encoding(file.read())
                file.seek(0)
            if encoding.startswith("utf-8"):
                yield from file
                return
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}") from error
    for line in text_of(path).split("\n"):
        yield line.encode("utf-8", "surrogatepass")


def text_of(path: Path) -> str:
    """A file's whole text; errors as in ``lines_of``, and where it is not UTF-8."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}") from error
    encoding = _encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise DatasetError(f"{path} is not {name} (at byte {error.start}: {error.reason}); save the file as UTF-8") from None


def parse(text: str) -> Any:
    """What a JSON text says.

    Raises:
        DatasetError: it is no JSON.
    """
    try:
        return json.loads(text, parse_float=Written)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"no JSON ({error})") from None


def parse_line(line: bytes) -> Any:
    """What a line says; errors as in ``parse``, and where it is not UTF-8."""
    try:
        return parse(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DatasetError(f"not UTF-8 (byte {error.start} of the line is {line[error.start]:#x}); save the file as UTF-8") from None


def content_of(path: Path) -> Any:
    """What a file says as a whole; None for one that holds an object on each of its lines.

    Raises:
        DatasetError: it is neither.
    """
    text = text_of(path)
    try:
        content = parse(text)
    except DatasetError as error:
        if any(_is_record(line) for line in text.split("\n", _LINES_LOOKED_AT)[:_LINES_LOOKED_AT]):
            return None
        raise DatasetError(f"{path} is {error.message}") from None
    return None if _has_image(content) else content


def kind_of(value: Any) -> str:
    """What JSON calls a value's type."""
    names = {type(None): "null", bool: "a boolean", int: "a number", Written: "a number", float: "a number", str: "a text"}
    return names.get(type(value), "a list" if isinstance(value, list) else "an object")


def _encoding(content: bytes) -> str:
    """The encoding of a JSON file of these bytes, or that begins with these four; one without a mark must be readable in it."""
    encoding = json.detect_encoding(content)
    has_mark = content.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
    if has_mark or encoding == "utf-8":
        return encoding
    try:
        return encoding if content.decode(encoding).lstrip()[:1] in ("{", "[") else "utf-8"
    except UnicodeDecodeError:
        return "utf-8"


def _is_record(line: str) -> bool:
    try:
        return _has_image(parse(line))
    except DatasetError:
        return False


def _has_image(value: Any) -> bool:
    return isinstance(value, dict) and "image" in value
