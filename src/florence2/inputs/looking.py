"""A first look at an image: whether it is there, and what its first bytes say that it is.

In: the name of a file, a URL, a data URI, or standard input. Out: an ``Input``, with the reason where it can't be used. Decodes nothing.
"""

from __future__ import annotations

import os
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

from florence2.console import shown
from florence2.errors import InvalidImage
from florence2.image_files import PICTURE_NAME, START_BYTES, describe, format_of
from florence2.image_files.base64_text import decode_base64
from florence2.inputs import urls
from florence2.inputs.input import Input, Medium
from florence2.inputs.lists import STDIN
from florence2.inputs.media import medium_of, missing_reader
from florence2.tasks.naming import meant_tag
from florence2.tasks.table import TASKS

_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")


def looked_at(given: Input) -> Input:
    """A file with what is wrong with its first bytes, if anything; pipes and devices are left to be read once."""
    try:
        if not stat.S_ISREG(os.stat(given.path).st_mode):
            return given
        with open(given.path, "rb") as file:
            start = file.read(START_BYTES)
    except FileNotFoundError:
        hint = "; a task goes behind --task or --prompt" if meant_tag(given.name) or given.name in TASKS else ""
        return refused(given, f"there is no file {shown(given.name)!r}; the current folder is {shown(os.getcwd())!r}{hint}")
    except (OSError, ValueError) as error:
        return refused(given, f"{shown(given.shown)} can't be read: {getattr(error, 'strerror', None) or error}")
    return with_start(given, start)


def sifted(paths: Sequence[str], root: str) -> tuple[list[Input], Counter[Medium]]:
    """Those of some files that are pictures, documents or videos, and how many are not: by what they are; ``picture`` counts all others.

    A file with a picture's name that holds none comes with its error.
    """
    found: list[Input] = []
    left: Counter[Medium] = Counter()
    for path in paths:
        given = looked_at(Input(path, path=absolute(path), root=root, below=below_root(path, root)))
        if given.error is None or PICTURE_NAME.search(path):
            found.append(given)
        else:
            left[given.medium] += 1
    return found, left


def from_stdin() -> Input:
    """What standard input holds."""
    given = Input(STDIN, "stdin")
    if sys.stdin.isatty():
        return refused(given, "- is standard input, and that is a terminal: pipe a picture into the command, or give its name")
    try:
        start = sys.stdin.buffer.read(START_BYTES)
        given = with_start(replace(given, content=start), start)
        # What is no picture is not read to its end, which it may not have.
        return given if given.error is not None else replace(given, content=start + sys.stdin.buffer.read())
    except OSError as error:
        return refused(given, f"standard input can't be read: {error.strerror}")


def from_data(word: str) -> Input:
    """What a data URI holds."""
    given = Input(word, "data")
    start, comma, payload = word.partition(",")
    try:
        if not comma:
            raise ValueError("there is no comma in it")
        is_base64 = start.lower().rstrip().endswith(";base64")
        content = decode_base64(unquote(payload)) if is_base64 else unquote_to_bytes(payload)
    except ValueError as error:
        return refused(given, f"the data URI {given.shown} can't be decoded: {error}; expected data:image/png;base64,…")
    return with_start(replace(given, content=content), content[:START_BYTES])


def from_url(word: str) -> Input:
    """A URL that may be fetched."""
    given = Input(word, "url")
    complaint = urls.complaint(word)
    return given if complaint is None else refused(given, f"{given.shown}: {complaint}")


def with_start(given: Input, start: bytes) -> Input:
    """An image with what is wrong with its first bytes, if anything."""
    what = "standard input" if given.kind == "stdin" else shown(given.shown)
    if not start:
        return refused(given, f"{what} is empty")
    medium = medium_of(start)
    if medium in ("pdf", "video"):
        given = replace(given, medium=medium)
        missing = missing_reader(medium)
        return given if missing is None else refused(given, f"{what}: {missing}")
    form = format_of(start)
    if form is None:
        return refused(given, f"{what}: {describe(start)}")
    return replace(given, medium="tiff" if form == "TIFF" else "animation" if form in _ANIMATED else "picture")


def absolute(path: str) -> Path:
    """The path from the root; as it is where there is none, such as in a folder that was removed."""
    try:
        return Path(os.path.abspath(path))
    except (OSError, ValueError):
        return Path(path)


def refused(given: Input, message: str) -> Input:
    """The image with what is wrong with it."""
    return replace(given, error=InvalidImage(message, field="image"))


def below_root(path: str, root: str) -> str:
    """A path below a folder, parted by ``/``."""
    return os.path.relpath(path, root or ".").replace(os.sep, "/")
