"""The folders that were allowed, and the files below them that may be read.

In: a path as an assistant wrote it. Out: the bytes of a regular file whose real place is below an allowed folder, symbolic links resolved.
What lies elsewhere is refused in the same words whether it is there or not. Knows nothing of images.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from florence2.errors import InvalidImage, InvalidOption
from florence2.images.messages import invalid, shown

# A link in the last part is no longer there once a path is resolved; a pipe must not be waited for. Windows has neither.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


class Folders:
    """Folders whose files may be read.

    Args:
        folders: paths of folders; none: no file may be read.

    Raises:
        InvalidOption: one of them is no folder.
    """

    def __init__(self, folders: Sequence[str | os.PathLike[str]]) -> None:
        for folder in folders:
            if not os.path.isdir(folder):
                raise InvalidOption(f"--allow takes a folder that is there, got {shown(os.fspath(folder))}", field="allow")
        self.roots = tuple(dict.fromkeys(Path(os.path.realpath(folder)) for folder in folders))

    def find(self, text: str) -> Path:
        """The real path of a file that may be read.

        Args:
            text: an absolute path, one that is relative to an allowed folder, one that begins with ``~``, or a ``file:`` URL.

        Raises:
            InvalidImage: it lies elsewhere, is not there, or is no regular file.
        """
        if not self.roots:
            raise invalid(
                f"local files may not be read here, got {shown(text)}: give an https:// URL or a data: URI, or ask the user to start "
                "florence2 mcp with --allow FOLDER"
            )
        try:
            found = self._resolved(text)
            kind = os.stat(found).st_mode
        except InvalidImage:
            raise
        except ValueError:  # a null byte, or what no name of a file can hold
            raise invalid(f"{shown(text)} is no path of a file") from None
        except OSError as error:
            raise _unreadable(text, error) from None
        if not stat.S_ISREG(kind):
            raise invalid(f"{shown(text)} is {'a folder' if stat.S_ISDIR(kind) else 'no regular file'}; give the path of an image file")
        return found

    def read(self, text: str, max_bytes: int) -> bytes:
        """The content of a file that may be read; ``text`` is as in ``find``.

        Raises:
            InvalidImage: it may not be read, or holds more than ``max_bytes``.
        """
        path = self.find(text)
        try:
            with open(os.open(path, _FLAGS), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise invalid(f"{shown(text)} is no regular file; give the path of an image file")
                data = file.read(max_bytes + 1)
        except OSError as error:
            raise _unreadable(text, error) from None
        if len(data) > max_bytes:
            raise invalid(f"{shown(text)} has more than {max_bytes} bytes; give a smaller image")
        return data

    def _resolved(self, text: str) -> Path:
        """The real path of what a text names: of several allowed folders that a relative path may lie in, in the first that has it."""
        path = Path(os.path.expanduser(_local_path(text)))
        places = [Path(os.path.realpath(root / path)) for root in self.roots]
        allowed = [place for place in places if any(place.is_relative_to(root) for root in self.roots)]
        if not allowed:
            raise invalid(f"{shown(text)} is not below a folder whose files may be read ({self}); give a path there, a URL or a data URI")
        return next((place for place in allowed if place.exists()), allowed[0])

    def __str__(self) -> str:
        """The folders as messages name them."""
        return ", ".join(map(str, self.roots))


def _local_path(text: str) -> str:
    """The path in a text, which may be a ``file:`` URL of this machine."""
    if not text.lower().startswith("file:"):
        return text
    parts = urlsplit(text)
    if parts.netloc.lower() not in ("", "localhost"):
        raise invalid(f"{shown(text)} is a file of another machine; give a path, an https:// URL or a data: URI")
    return url2pathname(parts.path) if os.name == "nt" else unquote(parts.path)


def _unreadable(text: str, error: OSError) -> InvalidImage:
    """The error for a file that the system does not let be read; it does not tell what a link points at."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return invalid(f"there is no file {shown(text)}; check the path")
    return invalid(f"{shown(text)} can't be read: {error.strerror or type(error).__name__}")
