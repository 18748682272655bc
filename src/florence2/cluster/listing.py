"""The pictures of a labelling run on a cluster, listed as they are taken, so that a hundred million of them need not be held.

In: words as for the command line, and lists. Out: what is to be read, each once, in groups, under the same ids as in a run on one machine.
Folders and patterns are looked through while the run goes on, lists are read line by line, and folders in object stores are listed by
fsspec; what a file of a folder holds is looked at by who reads it. Knows neither Ray nor models.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from florence2.cluster.remote_files import remote_list, remote_pictures
from florence2.console import shown
from florence2.errors import InvalidRequest
from florence2.inputs import urls
from florence2.inputs.find import PATTERN, below_list, find_inputs, fixed_folder
from florence2.inputs.folders import InFolder, Walk, folder_by_folder, without_runs
from florence2.inputs.input import Input
from florence2.inputs.lists import is_list, iter_list, list_name
from florence2.inputs.looking import absolute, below_root, from_data, from_url, refused
from florence2.inputs.pictures import pictures_of
from florence2.inputs.repeats import identity
from florence2.inputs.selection import Selection
from florence2.labelling.part_files import is_url

_AT_ONCE = 512
Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Listed:
    """One input that is to be read.

    Attributes:
        given: it; a file was not looked at yet.
        is_of_folder: it is one of a folder or pattern, and is left out where it is no picture.
        ids: of its pictures those that are wanted, where the run is limited; None for all.
    """

    given: Input
    is_of_folder: bool = False
    ids: frozenset[str] | None = None


@dataclass(frozen=True)
class Named:
    """What a user names, as ``florence2.labelling.label`` takes it.

    Attributes:
        words: paths, folders, patterns, URLs, ``@FILE``; or inputs that were read already, such as standard input.
        lists: files with such words, or the words of one that was read already.
        column: of tables, the column with paths or URLs.
        output: the run's folder where it is one of this machine, of which nothing is taken.
        selection: which pages and frames of files that hold several.
        limit: at most so many pictures; None for all.
    """

    words: Sequence[str | Input]
    lists: Sequence[str | Sequence[str]] = ()
    column: str | None = None
    output: str | None = None
    selection: Selection = field(default_factory=Selection)
    limit: int | None = None


def listed(named: Named, notice: Notice) -> Iterator[list[Listed]]:
    """What is named, each once, some hundred at a time.

    Args:
        named: by the user.
        notice: called with a line for what was left out.

    Raises:
        InvalidRequest: a list can't be read, or all that is named lies in the output.
    """
    each = _Lister(named, notice).each()
    if named.limit is not None:
        yield from _in_groups(_limited(named, notice, each))
        return
    met, folders, num_repeats = MetNames(), dict[str, str](), 0
    for group in _in_groups(each):
        are_new = met.add([identity(one.given, folders) for one in group])
        num_repeats += len(group) - sum(are_new)
        yield [one for one, is_new in zip(group, are_new, strict=True) if is_new]
    if num_repeats:
        notice(f"left out {num_repeats} {'image that is' if num_repeats == 1 else 'images that are'} named twice")


class MetNames:
    """Names that were met, as eight bytes of a digest each: sorted arrays, of which each is at least twice as long as the next."""

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []

    def add(self, names: Sequence[str]) -> list[bool]:
        """Whether each name is met for the first time; from now on all are known."""
        made = b"".join(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in names)
        keys = np.frombuffer(made, np.uint64)
        are_new = np.zeros(len(keys), bool)
        are_new[np.unique(keys, return_index=True)[1]] = True
        for array in self._arrays:
            places = np.minimum(np.searchsorted(array, keys), len(array) - 1)
            are_new &= array[places] != keys
        if are_new.any():
            self._arrays.append(np.sort(keys[are_new]))
        while len(self._arrays) > 1 and len(self._arrays[-2]) < 2 * len(self._arrays[-1]):
            last = self._arrays.pop()
            self._arrays[-1] = np.sort(np.concatenate([self._arrays[-1], last]), kind="stable")
        return are_new.tolist()


class _Lister:
    """What words name, in their order."""

    def __init__(self, named: Named, notice: Notice) -> None:
        self._named, self._notice = named, notice
        self._output = None if named.output is None else InFolder(named.output)

    def each(self) -> Iterator[Listed]:
        """Each input, also those that come again."""
        num_outside = num_inside = 0
        for word, is_listed in self._words():
            if isinstance(word, Input):
                yield Listed(word)
            elif self._output is not None and not is_url(word) and os.path.lexists(word) and self._output.holds(word):
                num_inside += 1
                continue
            else:
                yield from self._found(word, is_listed=is_listed)
            num_outside += 1
        where = f"in the output folder {shown(self._named.output)!r}"
        if num_inside and not num_outside:
            raise InvalidRequest(f"all that is named lies {where}; name pictures outside of it", field="image")
        if num_inside:
            self._notice(f"left out {num_inside} {'name that lies' if num_inside == 1 else 'names that lie'} {where}")

    def _words(self) -> Iterator[tuple[str | Input, bool]]:
        """Each word, and whether it stands in a list."""
        for word in self._named.words:
            if isinstance(word, str) and is_list(word):
                yield from self._of_list(list_name(word))
            else:
                yield word, False
        for named in self._named.lists:
            yield from self._of_list(named) if isinstance(named, str) else ((word, True) for word in named)

    def _of_list(self, name: str) -> Iterator[tuple[str, bool]]:
        names = remote_list(name, self._named.column) if is_url(name) else iter_list(name, self._named.column)
        for word in names:
            yield word, True

    def _found(self, word: str, *, is_listed: bool) -> Iterator[Listed]:
        """What one word names; the order of the questions is that of ``inputs.find``."""
        if urls.is_url(word) and not os.path.lexists(word):
            yield Listed(from_url(word))
        elif is_url(word) and not os.path.lexists(word):
            for one in remote_pictures(word, is_listed=is_listed):
                yield Listed(one, is_of_folder=bool(one.root))
        elif os.path.isdir(word):
            yield from self._in_folder(word, word)
        elif os.path.lexists(word):
            yield Listed(Input(word, path=absolute(word), below=below_list(word) if is_listed else ""))
        elif word[:5].lower() == "data:":
            yield Listed(from_data(word))
        elif word[:5].lower() == "file:":
            yield from self._at_file_url(word)
        elif PATTERN.search(word):
            yield from self._matching(word)
        else:
            yield Listed(Input(word, path=absolute(word)))

    def _at_file_url(self, word: str) -> Iterator[Listed]:
        parts = urlsplit(word)
        path = url2pathname(parts.path)
        if parts.netloc not in ("", "localhost"):
            yield Listed(refused(Input(word), f"{shown(word)!r} is a file of another machine; give its path here"))
        elif os.path.isdir(path):
            yield from self._in_folder(word, path)
        else:
            yield Listed(Input(word, path=absolute(path)))

    def _in_folder(self, word: str, folder: str) -> Iterator[Listed]:
        """The files in a folder and below it."""
        walked = Walk()
        for paths in folder_by_folder(folder, walked):
            for path in sorted(paths):
                yield Listed(Input(path, path=absolute(path), root=folder, below=below_root(path, folder)), is_of_folder=True)
        for name, why in walked.unreadable.items():
            yield Listed(refused(Input(name, path=absolute(name)), f"the folder {shown(name)!r} can't be read: {why}"))
        self._report(word, walked)

    def _matching(self, word: str) -> Iterator[Listed]:
        """The files that a pattern matches, and those in folders that it matches."""
        root, num_runs, num_found = fixed_folder(word), 0, 0
        matches = glob.iglob(word, recursive=True)
        while some := list(islice(matches, _AT_ONCE)):
            paths, num = without_runs(sorted(some), root)
            num_runs, num_found = max(num_runs, num), num_found + len(some)
            for path in paths:
                if not os.path.isdir(path):
                    yield Listed(Input(path, path=absolute(path), root=root, below=below_root(path, root)), is_of_folder=True)
                elif "**" not in word:
                    for one in self._in_folder(word, path):
                        yield Listed(_below(one.given, root), is_of_folder=True)
        if not num_found:
            yield Listed(refused(Input(word), f"no file matches {shown(word)!r}; the current folder is {shown(os.getcwd())!r}"))
        self._report(word, Walk(num_runs=num_runs))

    def _report(self, word: str, walked: Walk) -> None:
        """Say what was left out."""
        for count, what in ((walked.num_runs, "that florence2 label has written"), (walked.num_links, "that links lead to twice")):
            if count:
                self._notice(f"{shown(word)}: left out {count} {'folder' if count == 1 else 'folders'} {what}")


def _below(given: Input, root: str) -> Input:
    """A file of a folder, named below a folder above that."""
    return given if given.error else Input(given.name, path=given.path, root=root, below=below_root(given.name, root))


def _limited(named: Named, notice: Notice, lazily: Iterator[Listed]) -> Iterator[Listed]:
    """The first so many pictures, in the order of a run on one machine; remote folders in that in which they are listed."""
    limit = named.limit or 0
    words = [*named.words, *named.lists]
    if all(isinstance(word, str) and not _is_remote(word) for word in words):
        found = find_inputs(
            [str(word) for word in named.words],
            [str(name) for name in named.lists],
            notice,
            is_recursive=True,
            are_distinct=True,
            column=named.column,
            output=named.output,
        )
        lazily = (Listed(one, is_of_folder=bool(one.root)) for one in found)
    first = list(islice(lazily, limit))
    if all(named.selection.is_one(one.given) for one in first):
        yield from first
        return
    for one in first:
        if limit > 0:
            ids = _ids(one.given, named.selection)[:limit]
            limit -= len(ids)
            yield Listed(one.given, one.is_of_folder, frozenset(ids))


def _ids(given: Input, selection: Selection) -> list[str]:
    """The ids of the pictures of an input; pages and frames are counted and not decoded."""
    if selection.is_one(given) and given.kind != "url":
        return [given.id]
    found: list[str] = []

    def note(picture_id: str) -> bool:
        found.append(picture_id)
        return True

    found += [picture.image.id for picture in pictures_of(given, selection, note)]
    return list(dict.fromkeys(found))


def _is_remote(word: str) -> bool:
    return is_url(word.removeprefix("@")) and not urls.is_url(word)


def _in_groups(each: Iterator[Listed]) -> Iterator[list[Listed]]:
    while group := list(islice(each, _AT_ONCE)):
        yield group
