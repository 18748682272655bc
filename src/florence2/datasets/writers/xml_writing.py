"""XML files written element by element, of any text.

In: tags, texts and attributes. Out: indented XML 1.0 in UTF-8. A character that XML can't hold, such as a control character, has U+FFFD in
its place; line breaks survive in attributes too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO
from xml.sax.saxutils import escape, quoteattr

HEADER = b'<?xml version="1.0" encoding="utf-8"?>\n'
_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class XmlFile:
    """Elements written into a file.

    Args:
        file: what they are written to, without a header.
        depth: the depth of the first element.
    """

    def __init__(self, file: IO[bytes], depth: int = 0) -> None:
        self._file, self._depth = file, depth

    @contextmanager
    def element(self, tag: str, /, **attributes: object) -> Iterator[None]:
        """An element; what is written inside of the block stands in it."""
        self._write(f"<{tag}{_attributes(attributes)}>")
        self._depth += 1
        yield
        self._depth -= 1
        self._write(f"</{tag}>")

    def leaf(self, tag: str, text: object = "", /, **attributes: object) -> None:
        """Write an element with a text, or with attributes alone."""
        content = escape(_allowed(text), {"\r": "&#13;"})
        self._write(f"<{tag}{_attributes(attributes)}" + (f">{content}</{tag}>" if content else "/>"))

    def _write(self, line: str) -> None:
        self._file.write(f"{'  ' * self._depth}{line}\n".encode())


def _attributes(values: dict[str, object]) -> str:
    return "".join(f" {name}={quoteattr(_allowed(value))}" for name, value in values.items())


def _allowed(value: object) -> str:
    return _FORBIDDEN.sub("\ufffd", str(value))
