"""The files of a folder that many processes write to, on this machine or behind a URL: each is there as a whole, or not at all.

In: a folder or a URL such as ``s3://bucket/run``, names and contents. Out: what is there. A file is written aside under a name that no
reader takes for one, and renamed; where a store keeps whole objects only, it is put there at once. Knows nothing of what files hold.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from florence2.errors import InvalidOption, MissingExtra
from florence2.extras import requires

UNFINISHED = ".unfinished-"
STALE_S = 600.0
"""A file that is older and still has no name of its own was left by a process that is gone."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}


def is_url(folder: str) -> bool:
    """Whether a folder is named by a URL, and not by a path of this machine."""
    return _URL.match(folder) is not None and not folder.startswith("file://")


class Files(Protocol):
    """The files of one folder, by their names in it."""

    def names(self) -> list[str]:
        """The names of all files, sorted; none where there is no folder."""
        ...

    def open(self, name: str) -> BinaryIO:
        """A file, to be read from any place in it."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file as a whole, in place of one of that name; the folder is made where there is none."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def clean(self, older_than_s: float) -> None:
        """Remove what writers that were killed have left."""
        ...


def files_in(folder: str) -> Files:
    """The files of a folder, given by its path or URL.

    Raises:
        InvalidOption: no file system is known by the URL's beginning.
        MissingExtra: a package for it is not installed.
    """
    if is_url(folder):
        return RemoteFiles(folder)
    return LocalFiles(Path(url2pathname(urlsplit(folder).path)) if folder.startswith("file://") else Path(folder))


class LocalFiles:
    """The files of a folder of this machine, or of one that it shares with others; see ``Files``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """See ``Files``."""
        try:
            return sorted(entry.name for entry in os.scandir(self._folder) if entry.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def open(self, name: str) -> BinaryIO:
        """See ``Files``."""
        return (self._folder / name).open("rb")

    def write(self, name: str, content: bytes) -> None:
        """See ``Files``."""
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = self._folder / f"{UNFINISHED}{uuid.uuid4().hex}"
        try:
            with aside.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._folder / name)
        except BaseException:
            with suppress(OSError):
                aside.unlink()
            raise
        self._sync_folder()

    def remove(self, name: str) -> None:
        """See ``Files``."""
        (self._folder / name).unlink(missing_ok=True)

    def clean(self, older_than_s: float) -> None:
        """See ``Files``."""
        for name in self.names():
            path = self._folder / name
            with suppress(OSError):
                if name.startswith(UNFINISHED) and time.time() - path.stat().st_mtime >= older_than_s:
                    path.unlink()

    def _sync_folder(self) -> None:
        """Have the disk hold the folder's names, where a system can."""
        with suppress(OSError):
            descriptor = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class RemoteFiles:
    """The files behind a URL; see ``Files``."""

    def __init__(self, folder: str) -> None:
        self._protocol = folder.partition("://")[0].lower()
        self._system, root = file_system(folder)
        self._root = root.rstrip("/")

    def names(self) -> list[str]:
        """See ``Files``."""
        try:
            with _as_os_errors():
                self._system.invalidate_cache()
                listed = self._system.ls(self._root, detail=True)
        except FileNotFoundError:
            return []
        return sorted(name for each in listed if each["type"] == "file" and (name := _last(each["name"])))

    def open(self, name: str) -> BinaryIO:
        """See ``Files``."""
        with _as_os_errors():
            return self._system.open(self._at(name), "rb")

    def write(self, name: str, content: bytes) -> None:
        """See ``Files``."""
        with _as_os_errors():
            self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        if self._protocol in _OBJECT_STORES:
            self._system.pipe_file(self._at(name), content)
            return
        self._system.makedirs(self._root, exist_ok=True)
        aside = self._at(f"{UNFINISHED}{uuid.uuid4().hex}")
        try:
            self._system.pipe_file(aside, content)
            self._system.mv(aside, self._at(name))
        except BaseException:
            with suppress(Exception):
                self._system.rm_file(aside)
            raise

    def remove(self, name: str) -> None:
        """See ``Files``."""
        with suppress(FileNotFoundError), _as_os_errors():
            self._system.rm_file(self._at(name))

    def clean(self, older_than_s: float) -> None:
        """See ``Files``."""
        for name in self.names():
            if name.startswith(UNFINISHED):
                with suppress(Exception):  # a store that knows no times keeps what is there
                    if time.time() - self._system.modified(self._at(name)).timestamp() >= older_than_s:
                        self._system.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Raise what stores and their clients have for errors of their own as ``OSError``."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def file_system(folder: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it: fsspec's, or pyarrow's where fsspec's needs a package that is not there.

    Raises:
        InvalidOption: no file system is known by its beginning, or it can't be reached.
        MissingExtra: a package is not installed.
    """
    protocol = folder.partition("://")[0].lower()
    with requires("cluster", f"a folder behind {protocol}://"):
        import fsspec
    try:
        return fsspec.core.url_to_fs(folder)
    except ValueError as error:
        known = "s3://, gs:// or another that fsspec has a file system for"
        raise InvalidOption(f"{folder} names no file system that is known ({error}); expected {known}", field="output") from error
    except ImportError as error:
        return _by_pyarrow(folder, protocol, error)


def _by_pyarrow(folder: str, protocol: str, missing: ImportError) -> tuple[Any, str]:
    """The same by pyarrow, which brings what S3 and Google's storage need.

    Raises:
        MissingExtra: it can't, either.
    """
    try:
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow.fs import FileSystem

        system, path = FileSystem.from_uri(folder.replace("s3a://", "s3://", 1).replace("gcs://", "gs://", 1))
        return ArrowFSWrapper(system), path
    except OSError as error:
        raise InvalidOption(f"{folder} can't be reached: {str(error).splitlines()[0]}", field="output") from error
    except (ImportError, NotImplementedError, ValueError) as error:
        package = _PACKAGES.get(protocol, "")
        how = f"pip install {package}" if package else str(missing)
        raise MissingExtra(f"{folder} needs a package that is not installed: {how}") from error
