"""The files in a folder and in the folders below it, each once, sorted by name.

In: a folder. Out: paths that begin with the folder's name as it was given, and the folders that can't be read. Hidden files and folders
are left out, and those that a labelling run has written. Links to folders are followed, but no folder is walked through twice, so that
loops end. Opens no file.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

RUN_FOLDER = ".florence2"  # in each folder that a labelling run writes


@dataclass
class Walk:
    """What is in a folder and below it.

    Attributes:
        paths: files and all else that is no folder, sorted.
        unreadable: folders that can't be read, each with the reason.
        num_runs: folders left out as they are the output of a labelling run.
        num_links: links to folders that are walked through under another name.
    """

    paths: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    num_runs: int = 0
    num_links: int = 0


def walk(folder: str) -> Walk:
    """All files in a folder and below it; where several names lead to one folder, under the name without links."""
    walked = Walk()
    for paths in folder_by_folder(folder, walked):
        walked.paths += paths
    walked.paths.sort(key=lambda path: path.split(os.sep))
    return walked


def folder_by_folder(folder: str, walked: Walk) -> Iterator[list[str]]:
    """The files of each folder, each looked into when it is its turn: for what is too much to be held.

    Args:
        folder: where to begin.
        walked: takes what else there is to say; its ``paths`` stay as they are.
    """
    seen: set[tuple[int, int]] = set()
    folders, links = deque([folder]), deque[str]()
    while folders or links:
        name = folders.popleft() if folders else links.popleft()
        try:
            status = os.stat(name)
            if (status.st_dev, status.st_ino) in seen:
                walked.num_links += 1
                continue
            seen.add((status.st_dev, status.st_ino))
            paths = _list(name, walked, folders, links, is_root=name == folder)
        except OSError as error:
            walked.unreadable[name] = error.strerror or str(error)
            continue
        yield paths


def _list(folder: str, walked: Walk, folders: deque[str], links: deque[str], *, is_root: bool) -> list[str]:
    """The files in one folder; folders in it are put where they belong."""
    with os.scandir(folder) as listing:
        entries = list(listing)
    if not is_root and any(entry.name == RUN_FOLDER for entry in entries):
        walked.num_runs += 1
        return []
    paths: list[str] = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = os.path.join(folder, entry.name)
        if not is_folder(entry):
            paths.append(path)
        else:
            (links if entry.is_symlink() else folders).append(path)
    return paths


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; a link that leads in a circle, or to where nobody may look, is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


class InFolder:
    """Whether paths are a folder, or lie in it; links on the way are followed, that of the last name is not.

    Args:
        folder: need not be there.
    """

    def __init__(self, folder: str) -> None:
        self._folder = os.path.realpath(folder)
        self._known: dict[str, str] = {}

    def holds(self, path: str) -> bool:
        """Whether a path is the folder, or in it."""
        above, name = os.path.split(os.path.abspath(path))
        if above not in self._known:
            self._known[above] = os.path.realpath(above)
        return f"{os.path.join(self._known[above], name)}{os.sep}".startswith(os.path.join(self._folder, ""))


def without_runs(paths: Sequence[str], root: str) -> tuple[list[str], int]:
    """The paths below a folder that are no output of a labelling run, and how many runs there are.

    Args:
        paths: below the root, and beginning with it.
        root: the folder; it may itself be a run's, or in one.
    """
    runs: dict[str, str] = {os.path.normpath(root or "."): ""}

    def run_of(folder: str) -> str:
        """The folder of the run that a folder is in; empty for none."""
        if folder not in runs:
            above = os.path.dirname(folder) or "."
            inherited = "" if above == folder else run_of(above)
            runs[folder] = inherited or (folder if os.path.isdir(os.path.join(folder, RUN_FOLDER)) else "")
        return runs[folder]

    kept = [path for path in paths if not run_of(os.path.normpath(path if os.path.isdir(path) else os.path.dirname(path)))]
    return kept, len({run for run in runs.values() if run})
