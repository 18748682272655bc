"""Pictures and lists that lie in object stores and on other file systems that fsspec knows: ``s3://``, ``gs://``, ``az://``, ``hdfs://``.

In: a URL. Out: the pictures that it names, folder by folder, and the content of each; or the names in a list. A picture's URL is its name
and its id. Knows nothing of runs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from florence2.console import shown
from florence2.errors import Florence2Error, InvalidImage, InvalidRequest
from florence2.inputs import urls
from florence2.inputs.find import PATTERN
from florence2.inputs.folders import RUN_FOLDER
from florence2.inputs.input import Input
from florence2.inputs.lists import iter_list
from florence2.labelling.part_files import file_system, is_url


def is_remote(given: Input) -> bool:
    """Whether an input lies where fsspec reads it, and not on the web."""
    return given.kind == "url" and is_url(given.name) and not urls.is_url(given.name)


def remote_pictures(word: str, *, is_listed: bool) -> Iterator[Input]:
    """What a URL names: a file, the files in a folder and below it, or those that match a pattern.

    Args:
        word: the URL.
        is_listed: it stands in a list, where it is taken for a file unless it ends with ``/``, as nothing is asked about each line.

    Raises:
        InvalidRequest: its file system is not known, or does not answer.
    """
    if is_listed and not word.endswith("/"):
        yield Input(word, "url")
        return
    try:
        system, path = _system(word)
        if PATTERN.search(path):
            fixed = PATTERN.split(word, maxsplit=1)[0].rpartition("/")[0]
            matches = system.glob(path, detail=True)
            names = sorted(name for name, about in matches.items() if about["type"] == "file")
            yield from _files(fixed, _system(fixed)[1].rstrip("/"), [names])
        elif system.isdir(path):
            yield from _files(word.rstrip("/"), path.rstrip("/"), _folders(system, path.rstrip("/")))
        elif system.exists(path):
            yield Input(word, "url")
        else:
            raise InvalidRequest(f"there is nothing at {shown(word)}", field="image")
    except Florence2Error:
        raise
    except Exception as error:  # each store has errors of its own
        raise InvalidRequest(f"{shown(word)} can't be listed: {_said(error)}", field="image") from error


def fetched(given: Input, num_bytes: int | None = None) -> bytes:
    """The content of a remote picture.

    Args:
        given: the picture.
        num_bytes: no more than so many from its beginning; None for all.

    Raises:
        InvalidImage: it is gone, or can't be read.
    """
    try:
        system, path = _system(given.name)
        return system.cat_file(path, end=num_bytes)
    except FileNotFoundError:
        raise InvalidImage(f"there is no file {given.shown}", field="image") from None
    except Exception as error:  # as above
        raise InvalidImage(f"{given.shown} can't be read: {_said(error)}", field="image") from error


def remote_list(name: str, column: str | None) -> Iterator[str]:
    """The names in a remote list, which is copied to this machine and read line by line.

    Raises:
        InvalidRequest: it can't be read, or has no such column.
    """
    suffix = os.path.splitext(name)[1]
    with tempfile.TemporaryDirectory(prefix="florence2-list-") as folder:
        copy = os.path.join(folder, f"list{suffix}")
        try:
            system, path = _system(name)
            with system.open(path, "rb") as remote, open(copy, "wb") as local:
                shutil.copyfileobj(remote, local, 2**20)
        except Florence2Error:
            raise
        except Exception as error:  # as above
            raise InvalidRequest(f"the list {shown(name)} can't be read: {_said(error)}", field="lists") from error
        try:
            yield from iter_list(copy, column)
        except InvalidRequest as error:
            raise error.with_message(error.message.replace(copy, shown(name)), field="lists") from None


def _folders(system: Any, path: str) -> Iterator[list[str]]:
    """The files of each folder, without hidden ones and without what runs have written."""
    for folder, below, files in system.walk(path):
        if RUN_FOLDER in below and folder.rstrip("/") != path:
            below[:] = []
            continue
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield [f"{folder.rstrip('/')}/{name}" for name in sorted(files) if name and not name.startswith(".")]


def _files(root: str, path: str, folders: Any) -> Iterator[Input]:
    """The files as inputs.

    Args:
        root: the URL of the folder that they are named below.
        path: the same as the file system has it.
        folders: their paths.
    """
    for names in folders:
        for name in names:
            below = name[len(path) :].lstrip("/")
            yield Input(f"{root}/{below}", "url", root=root, below=below)


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL, which fsspec keeps, and the path in it."""
    return file_system(url)


def _said(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
