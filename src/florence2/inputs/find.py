"""The images that a command is given: files, folders, patterns, lists, URLs, data URIs and standard input.

In: words as the user wrote them. Out: one ``Input`` for each image, in order, under the name that the user gave it; one that can't be
used carries the reason, found without decoding anything and without the network. ``pictures.read`` then gives its picture. Knows
nothing of prompts and engines.
"""

from __future__ import annotations

import glob
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from florence2.console import shown
from florence2.errors import InvalidImage, InvalidRequest
from florence2.image_files import PICTURE_NAME, READ_FORMATS, describe, is_read
from florence2.image_files.base64_text import decode_base64
from florence2.inputs import urls
from florence2.inputs.lists import STDIN, is_list, read_list
from florence2.tasks.naming import meant_tag
from florence2.tasks.table import TASKS
from florence2.url_text import host_and_path, without_keys

Kind = Literal["file", "url", "data", "stdin"]
Notice = Callable[[str], None]

_OTHER_URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_PATTERN = re.compile(r"[*?\[]")
_START_BYTES = 4096
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Input:
    """One image, or what is wrong with it.

    Attributes:
        name: as the user gave it.
        kind: where it comes from.
        path: of a file.
        content: the bytes of an image that was read already.
        error: why it can't be used.
    """

    name: str
    kind: Kind = "file"
    path: Path = Path()
    content: bytes = b""
    error: InvalidImage | None = None

    @property
    def shown(self) -> str:
        """The name for people and logs: of a URL without password and query, which may be keys, of a data URI its beginning."""
        if self.kind == "url":
            return without_keys(self.name)
        return self.name if self.kind == "file" or len(self.name) <= _LONGEST_NAME else f"{self.name[:40]}…"

    @property
    def stem(self) -> str:
        """What the names of files begin with that are made for it."""
        if self.kind != "url":
            return {"file": self.path.stem, "data": "data", "stdin": "stdin"}[self.kind]
        host, path = host_and_path(self.name)
        last = Path(unquote(path).rstrip("/").replace("\\", "/").rpartition("/")[2]).stem
        plain = (re.sub(r"[^\w.-]+", "-", name).strip("-.") for name in (last, host))
        return next((name for name in plain if name), "url")[:_LONGEST_NAME]


def find_inputs(words: Sequence[str], lists: Sequence[str], notice: Notice) -> list[Input]:
    """Each image that is named, in order, those of lists last.

    Args:
        words: paths, folders, patterns, URLs, data URIs, ``-`` for standard input, ``@FILE`` for a list.
        lists: files with such words, one a line or parted by NUL bytes; ``-`` for standard input.
        notice: called with a line for each word of which files were left out.

    Raises:
        InvalidRequest: there is none, a list can't be read, or standard input is named twice.
    """
    all_lists = [*(word[1:] for word in words if is_list(word)), *lists]
    _check_stdin([*words, *all_lists])
    named = [inner for word in words for inner in (read_list(word[1:]) if is_list(word) else [word])]
    named += [inner for name in lists for inner in read_list(name)]
    _check_stdin([*named, *all_lists])
    if not named and all_lists:
        raise InvalidRequest(f"no image is named in {' or '.join(map(shown, all_lists))}", field="image")
    if not named:
        raise InvalidRequest("no image is given: name files, folders, patterns or URLs, - for standard input, or a list with --list")
    return [found for word in named for found in _found(word, notice)]


def _check_stdin(names: Sequence[str]) -> None:
    if names.count(STDIN) > 1:
        raise InvalidRequest("- is given more than once, and standard input can be read once", field="image")


def _found(word: str, notice: Notice) -> Iterator[Input]:
    """The images that one word names; what is there under that name comes before what it may mean."""
    if word == STDIN:
        yield _from_stdin()
    elif os.path.lexists(word):
        yield from _at(word, Path(word), notice)
    elif word[:5].lower() == "data:":
        yield _from_data(word)
    elif urls.is_url(word):
        yield _from_url(word)
    elif word[:5].lower() == "file:":
        yield from _from_file_url(word, notice)
    elif other := _OTHER_URL.match(word):
        given = Input(word, "url")
        yield _refused(given, f"{given.shown}: {other[1]}:// is not fetched; give https:// or http://, or download it")
    elif _PATTERN.search(word):
        paths = sorted(name for name in glob.glob(word, recursive=True) if not os.path.isdir(name))
        nothing = f"no file matches {shown(word)!r}; the current folder is {shown(os.getcwd())!r}"
        yield from _pictures(word, paths, nothing, notice)
    else:
        yield _looked_at(Input(word, path=Path(word)))


def _at(word: str, path: Path, notice: Notice) -> Iterator[Input]:
    """A file, or the pictures in a folder under the names that the folder's gives them."""
    if not path.is_dir():
        yield _looked_at(Input(word, path=path))
        return
    try:
        names = sorted(entry.name for entry in os.scandir(path) if not entry.name.startswith(".") and not entry.is_dir())
    except OSError as error:
        yield Input(word, error=_invalid(f"the folder {shown(word)!r} can't be read: {error.strerror}"))
        return
    nothing = f"there is no file in the folder {shown(word)!r}; folders in it are not looked into: give {shown(os.path.join(word, '**'))!r}"
    yield from _pictures(word, [os.path.join(path, name) for name in names], nothing, notice)


def _pictures(word: str, paths: Sequence[str], nothing: str, notice: Notice) -> Iterator[Input]:
    """Those of some files that are pictures, by content or by name; the number of the others is reported.

    A file with a picture's name that holds none comes with its error.
    """
    paths = [path for path in paths if os.path.isfile(path) or not os.path.exists(path)]  # no pipe, which may never end
    looked_at = [_looked_at(Input(path, path=Path(path))) for path in paths]
    found = [one for one in looked_at if one.error is None or PICTURE_NAME.search(one.name)]
    if not found:
        said = nothing if not paths else f"no picture among the {len(paths)} files of {shown(word)!r} ({READ_FORMATS} are read)"
        yield Input(word, error=_invalid(said))
    elif left := len(paths) - len(found):
        notice(f"{shown(word)}: left out {left} {'file that is no picture' if left == 1 else 'files that are no pictures'}")
    yield from found


def _from_file_url(word: str, notice: Notice) -> Iterator[Input]:
    """What stands under a file manager's address."""
    parts = urlsplit(word)
    if parts.netloc not in ("", "localhost"):
        yield Input(word, error=_invalid(f"{shown(word)!r} is a file of another machine; give its path here"))
    else:
        yield from _at(word, Path(url2pathname(parts.path)), notice)


def _looked_at(given: Input) -> Input:
    """A file with what is wrong with its first bytes, if anything; pipes and devices are left to be read once."""
    try:
        if not stat.S_ISREG(os.stat(given.path).st_mode):
            return given
        with open(given.path, "rb") as file:
            start = file.read(_START_BYTES)
    except FileNotFoundError:
        hint = "; a task goes behind --task or --prompt" if meant_tag(given.name) or given.name in TASKS else ""
        return _refused(given, f"there is no file {shown(given.name)!r}; the current folder is {shown(os.getcwd())!r}{hint}")
    except (OSError, ValueError) as error:
        return _refused(given, f"{shown(given.shown)} can't be read: {getattr(error, 'strerror', None) or error}")
    return _with_start(given, start)


def _from_stdin() -> Input:
    """What standard input holds."""
    given = Input(STDIN, "stdin")
    if sys.stdin.isatty():
        return _refused(given, "- is standard input, and that is a terminal: pipe a picture into the command, or give its name")
    try:
        content = sys.stdin.buffer.read()
    except OSError as error:
        return _refused(given, f"standard input can't be read: {error.strerror}")
    return _with_start(replace(given, content=content), content[:_START_BYTES])


def _from_data(word: str) -> Input:
    """What a data URI holds."""
    given = Input(word, "data")
    start, comma, payload = word.partition(",")
    try:
        if not comma:
            raise ValueError("there is no comma in it")
        is_base64 = start.lower().rstrip().endswith(";base64")
        content = decode_base64(unquote(payload)) if is_base64 else unquote_to_bytes(payload)
    except ValueError as error:
        return _refused(given, f"the data URI {given.shown} can't be decoded: {error}; expected data:image/png;base64,…")
    return _with_start(replace(given, content=content), content[:_START_BYTES])


def _from_url(word: str) -> Input:
    """A URL that may be fetched."""
    given = Input(word, "url")
    complaint = urls.complaint(word)
    return given if complaint is None else _refused(given, f"{given.shown}: {complaint}")


def _with_start(given: Input, start: bytes) -> Input:
    """An image with what is wrong with its first bytes, if anything."""
    if not start:
        return _refused(given, f"{_what(given)} is empty")
    return given if is_read(start) else _refused(given, f"{_what(given)}: {describe(start)}")


def _what(given: Input) -> str:
    return "standard input" if given.kind == "stdin" else shown(given.shown)


def _refused(given: Input, message: str) -> Input:
    return replace(given, error=_invalid(message))


def _invalid(message: str) -> InvalidImage:
    return InvalidImage(message, field="image")
