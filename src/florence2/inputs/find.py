"""The images that a command is given: files, folders, patterns, lists, URLs, data URIs and standard input.

In: words as the user wrote them. Out: one ``Input`` for each image, document or video, in order, under the name that the user gave it; one
that can't be used carries the reason, found without decoding anything and without the network. ``pictures`` then gives the pictures. Knows
nothing of prompts and engines.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import url2pathname

from florence2.console import shown
from florence2.errors import InvalidImage, InvalidRequest
from florence2.image_files import READ_FORMATS
from florence2.inputs import urls
from florence2.inputs.folders import InFolder, Walk, is_folder, walk, without_runs
from florence2.inputs.input import Input
from florence2.inputs.lists import STDIN, is_list, list_name, read_list
from florence2.inputs.looking import absolute, from_data, from_stdin, from_url, looked_at, refused, sifted
from florence2.inputs.media import missing_reader
from florence2.inputs.repeats import without_repeats

Notice = Callable[[str], None]

_OTHER_URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
PATTERN = re.compile(r"[*?\[]")


def find_inputs(
    words: Sequence[str],
    lists: Sequence[str],
    notice: Notice,
    *,
    is_recursive: bool = False,
    are_distinct: bool = False,
    column: str | None = None,
    output: str | None = None,
) -> list[Input]:
    """Each image, document or video that is named, in order, those of lists last.

    Args:
        words: paths, folders, patterns, URLs, data URIs, ``-`` for standard input, ``@FILE`` for a list.
        lists: files with such words, one a line or parted by NUL bytes, or tables (CSV, TSV, JSON lines, Parquet); ``-`` for standard
            input.
        notice: called with a line for what was left out.
        is_recursive: folders are looked through with all that is below them.
        are_distinct: a file, URL or data URI that is named again is left out.
        column: of tables, the column with paths or URLs; None for the first that is known to hold images.
        output: a folder of which nothing is taken, however it is named.

    Raises:
        InvalidRequest: there is none, all are in the output, a list can't be read, or standard input is named twice.
        MissingExtra: a list is Parquet, and pyarrow is not installed.
    """
    all_lists = [*(list_name(word) for word in words if is_list(word)), *lists]
    _check_stdin([*words, *all_lists])
    finder = _Finder(notice, is_recursive=is_recursive)
    listed = [(word, read_list(list_name(word), column)) if is_list(word) else (None, [word]) for word in words]
    listed += [(name, read_list(name, column)) for name in lists]
    named = [(word, source is not None) for source, inner in listed for word in inner]
    _check_stdin([*(word for word, _ in named), *all_lists])
    if not named and all_lists:
        raise InvalidRequest(f"no image is named in {' or '.join(map(shown, all_lists))}", field="image")
    if not named:
        raise InvalidRequest("no image is given: name files, folders, patterns or URLs, - for standard input, or a list with --list")
    if output is not None:
        named = _outside(output, named, notice)
    inputs = [found for word, is_listed in named for found in finder.found(word, is_listed=is_listed)]
    return without_repeats(inputs, notice) if are_distinct else inputs


def _outside(output: str, named: Sequence[tuple[str, bool]], notice: Notice) -> list[tuple[str, bool]]:
    """The words that name nothing in the output.

    Raises:
        InvalidRequest: there is none.
    """
    folder = InFolder(output)
    kept = [(word, is_listed) for word, is_listed in named if not (os.path.lexists(word) and folder.holds(word))]
    if not kept:
        raise InvalidRequest(f"all that is named lies in the output folder {shown(output)!r}; name pictures outside of it", field="image")
    if num := len(named) - len(kept):
        notice(f"left out {num} {'name that lies' if num == 1 else 'names that lie'} in the output folder {shown(output)!r}")
    return kept


def _check_stdin(names: Sequence[str]) -> None:
    if names.count(STDIN) > 1:
        raise InvalidRequest("- is given more than once, and standard input can be read once", field="image")


@dataclass(frozen=True)
class _Finder:
    """What words name.

    Attributes:
        notice: called with a line for what was left out.
        is_recursive: folders are looked through with all that is below them.
    """

    notice: Notice
    is_recursive: bool

    def found(self, word: str, *, is_listed: bool) -> Iterator[Input]:
        """The images that one word names; what is there under that name comes before what it may mean."""
        if word == STDIN:
            yield from_stdin()
        elif os.path.lexists(word):
            below = below_list(word) if is_listed else ""
            yield from self._at(word, word, below)
        elif word[:5].lower() == "data:":
            yield from_data(word)
        elif urls.is_url(word):
            yield from_url(word)
        elif word[:5].lower() == "file:":
            yield from self._at_file_url(word)
        elif other := _OTHER_URL.match(word):
            given = Input(word, "url")
            yield refused(given, f"{given.shown}: {other[1]}:// is not fetched; give https:// or http://, or download it")
        elif PATTERN.search(word):
            yield from self._matching(word)
        else:
            yield looked_at(Input(word, path=absolute(word)))

    def _at(self, word: str, path: str, below: str = "") -> Iterator[Input]:
        """A file, or the pictures in a folder under the names that the folder's gives them."""
        if not os.path.isdir(path):
            yield looked_at(Input(word, path=absolute(path), below=below))
        elif self.is_recursive:
            nothing = f"there is no file in the folder {shown(word)!r} or below it"
            yield from self._pictures(word, path, [path], nothing)
        else:
            yield from self._in_folder(word, path)

    def _in_folder(self, word: str, path: str) -> Iterator[Input]:
        """The pictures of one folder, without those below it."""
        try:
            names = sorted(entry.name for entry in os.scandir(path) if not entry.name.startswith(".") and not is_folder(entry))
        except OSError as error:
            yield Input(word, path=absolute(path), error=_unreadable(word, error.strerror))
            return
        below = shown(os.path.join(word, "**"))
        nothing = f"there is no file in the folder {shown(word)!r}; folders in it are not looked into: give {below!r}"
        yield from self._pictures(word, path, [os.path.join(path, name) for name in names], nothing)

    def _matching(self, word: str) -> Iterator[Input]:
        """The pictures that a pattern matches; in recursion also those in folders that it matches."""
        paths = sorted(glob.glob(word, recursive=True))
        if not self.is_recursive or "**" in word:
            paths = [path for path in paths if not os.path.isdir(path)]
        paths, num_runs = without_runs(paths, fixed_folder(word))
        self._report_walk(word, Walk(num_runs=num_runs))
        nothing = f"no file matches {shown(word)!r}; the current folder is {shown(os.getcwd())!r}"
        yield from self._pictures(word, fixed_folder(word), paths, nothing)

    def _at_file_url(self, word: str) -> Iterator[Input]:
        """What stands under a file manager's address."""
        parts = urlsplit(word)
        if parts.netloc not in ("", "localhost"):
            yield Input(word, error=_invalid(f"{shown(word)!r} is a file of another machine; give its path here"))
        else:
            yield from self._at(word, url2pathname(parts.path))

    def _pictures(self, word: str, root: str, paths: Sequence[str], nothing: str) -> Iterator[Input]:
        """Those of some files that are pictures, documents or videos, by content or by name; what is left out is reported.

        A file with a picture's name that holds none comes with its error, as does a folder that can't be read.
        """
        files: list[str] = []
        unreadable: list[Input] = []
        for path in paths:
            if os.path.isdir(path):
                walked = walk(path)
                files += walked.paths
                unreadable += [Input(name, path=absolute(name), error=_unreadable(name, why)) for name, why in walked.unreadable.items()]
                self._report_walk(word, walked)
            else:
                files.append(path)
        files = [path for path in files if os.path.isfile(path) or not os.path.exists(path)]  # no pipe, which may never end
        found, left = sifted(files, root)
        for medium in ("pdf", "video"):
            if left[medium]:
                self.notice(f"{shown(word)}: left out {_files(left[medium])}: {missing_reader(medium)}")
        if not found and not unreadable:
            said = nothing if not files else f"no picture among {_files(len(files))} of {shown(word)!r} ({READ_FORMATS} are read)"
            yield Input(word, path=absolute(root), error=_invalid(said))
        elif left["picture"]:
            are_none = "is no picture" if left["picture"] == 1 else "are no pictures"
            self.notice(f"{shown(word)}: left out {_files(left['picture'])} that {are_none}")
        yield from unreadable
        yield from found

    def _report_walk(self, word: str, walked: Walk) -> None:
        """Say which folders were left out."""
        if walked.num_runs:
            folders = "1 folder" if walked.num_runs == 1 else f"{walked.num_runs} folders"
            self.notice(f"{shown(word)}: left out {folders} that florence2 label has written")
        if walked.num_links:
            links = "1 link" if walked.num_links == 1 else f"{walked.num_links} links"
            self.notice(f"{shown(word)}: left out {links} to folders that are looked through under another name")


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def fixed_folder(pattern: str) -> str:
    """The folder where a pattern begins to match."""
    parts = pattern.split(os.sep)
    first = next(index for index, part in enumerate(parts) if PATTERN.search(part))
    return os.sep.join(parts[:first]) or (os.sep if pattern.startswith(os.sep) else "")


def below_list(word: str) -> str:
    """The name of a file among others of its list: as it stands there, unless that leads out of the folder."""
    path = os.path.normpath(word)
    return "" if os.path.isabs(path) or path.startswith("..") else path.replace(os.sep, "/")


def _unreadable(folder: str, why: str | None) -> InvalidImage:
    return _invalid(f"the folder {shown(folder)!r} can't be read: {why}")


def _invalid(message: str) -> InvalidImage:
    return InvalidImage(message, field="image")
