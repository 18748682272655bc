"""Text of docstrings as Markdown writes it."""

from __future__ import annotations

import re


def prose(docstring: str) -> str:
    """A docstring's text as Markdown on one line: its code marks, and no HTML outside of them."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", " ".join(docstring.split())).replace("``", "`")
    pieces = text.split("`")
    return "`".join(piece if index % 2 else piece.replace("<", "&lt;") for index, piece in enumerate(pieces))


def first_sentence(docstring: str) -> str:
    """The first sentence, without its full stop."""
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    return re.split(r"\.(?:\s|$)", paragraph, maxsplit=1)[0]
