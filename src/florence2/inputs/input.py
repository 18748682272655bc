"""One image that a command is given, under the names that it has in output, in a run that goes on later, and among files.

In: what ``find`` makes of a word. Out: ``Input``, and ``Part`` for a page or frame of a file that holds several. Opens nothing.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote

from florence2.errors import InvalidImage
from florence2.url_text import host_and_path, without_keys

Kind = Literal["file", "url", "data", "stdin", "memory"]
Medium = Literal["picture", "tiff", "animation", "pdf", "video"]
Unit = Literal["page", "frame", "time_s"]

_LONGEST_NAME = 100
_MARKS = {"page": "#page={:.0f}", "frame": "#frame={:.0f}", "time_s": "#t={:.3f}"}
_SUFFIXES = {"page": "-p{:03.0f}", "frame": "-f{:06.0f}", "time_s": "-t{:09.3f}"}


@dataclass(frozen=True, slots=True)
class Part:
    """Which of the pictures in a file.

    Attributes:
        unit: what is counted: pages from 1, frames from 0, or seconds from the beginning.
        value: the page, the frame, or the time.
    """

    unit: Unit
    value: float

    @property
    def mark(self) -> str:
        """What stands behind the file's name: ``#page=3``, ``#frame=12``, ``#t=4.000``."""
        return _MARKS[self.unit].format(self.value)

    @property
    def suffix(self) -> str:
        """What names of files have before their own suffix: ``-p003``, ``-f000012``, ``-t00004.000``."""
        return _SUFFIXES[self.unit].format(self.value)

    def to_dict(self) -> dict[str, float]:
        """The part for JSON: ``{"page": 3}``, ``{"frame": 12}``, ``{"time_s": 4.0}``."""
        return {self.unit: self.value if self.unit == "time_s" else int(self.value)}


@dataclass(frozen=True, slots=True)
class Input:
    """One image, or what is wrong with it; before it is read also a file that holds several.

    Attributes:
        name: as the user gave it, or as it is found below the folder that the user gave.
        kind: where it comes from.
        path: of a file, absolute.
        content: the bytes of an image that was read already.
        error: why it can't be used.
        root: the folder that named it, or the folder where a pattern begins; empty where it was named itself.
        below: its name below that folder, or as a list has it, parted by ``/``; empty where it was named itself.
        medium: what the file holds; an animation may have one frame only. Of a URL that is known when it is fetched.
        part: which page or frame of the file; None for a picture that is the file.
    """

    name: str
    kind: Kind = "file"
    path: Path = Path()
    content: bytes = b""
    error: InvalidImage | None = None
    root: str = ""
    below: str = ""
    medium: Medium = "picture"
    part: Part | None = None

    @property
    def id(self) -> str:
        """The name that stands for this picture, and no other, in a run and when the run goes on later."""
        name = self.name
        if self.kind in ("data", "stdin"):  # which are named by what they hold
            held = self.content if self.kind == "stdin" else self.name.encode("utf-8", "surrogateescape")
            name = f"{self.kind}:{hashlib.sha256(held).hexdigest()[:32]}"
        return f"{name}{self.part.mark if self.part else ''}"

    @property
    def relative_name(self) -> str:
        """Its name below the folder or pattern that named it, ``sub/a.jpg``; parts have a suffix, ``sub/a-p003.pdf``."""
        name = self.below or self._base_name
        if self.part is None:
            return name
        path = PurePosixPath(name)
        return str(path.with_name(f"{path.stem}{self.part.suffix}{path.suffix}"))

    @property
    def shown(self) -> str:
        """The name for people and logs: of a URL without password and query, which may be keys, of a data URI its beginning."""
        name, mark = self.name, self.part.mark if self.part else ""
        if self.kind == "url":
            name = without_keys(self.name)
        elif self.kind != "file" and len(self.name) > _LONGEST_NAME:
            name = f"{self.name[:40]}…"
        return name + mark

    @property
    def stem(self) -> str:
        """What the names of files begin with that are made for it."""
        name = self.path.stem if self.kind == "file" else _stem_and_suffix(self.name)[0] if self.kind == "url" else self.kind
        return f"{name}{self.part.suffix if self.part else ''}"

    @property
    def _base_name(self) -> str:
        """The last part of its name."""
        if self.kind == "file":
            return self.path.name or "image"
        return "".join(_stem_and_suffix(self.name)) if self.kind == "url" else self.kind


def _stem_and_suffix(url: str) -> tuple[str, str]:
    """The last part of a URL's path, or else its host, in characters that every file's name may have."""
    host, path = host_and_path(url)
    last = Path(unquote(path).rstrip("/").replace("\\", "/").rpartition("/")[2])
    stem, suffix, host = (re.sub(r"[^\w.-]+", "-", text).strip("-.") for text in (last.stem, last.suffix, host))
    if not stem:
        return (host or "url")[:_LONGEST_NAME], ""
    return stem[:_LONGEST_NAME], f".{suffix[:12]}" if suffix else ""
