"""What every writer of a format takes and gives beside the labelled pictures.

In: how pictures are placed and what of the labels is written. Out: counts, and what was left out and why. Nothing here grows with the
number of pictures, but for the list of those that could not be read any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from florence2.datasets.labelled import LabelledSet
from florence2.datasets.record import Problem

ImagePlacing = Literal["link", "copy", "leave"]
_EXAMPLES_SHOWN = 3


@dataclass(frozen=True)
class WriteOptions:
    """How a format is written.

    Attributes:
        images: ``link`` puts a link to each picture into the folder (a hard link, else a symbolic one, else a copy), ``copy`` a copy of its
            file; ``leave`` leaves pictures where they are, and the format names them by absolute paths.
        segments: whether outlines are written where a format has a place for them; None is yes, and for YOLO, which takes either boxes or
            outlines, yes where each object has one.
        scores: whether scores are written where there are any and the format has a place for them.
        home: where the folder will lie in the end, if it is moved there after it was written; None is where it is written.
    """

    images: ImagePlacing = "link"
    segments: bool | None = None
    scores: bool = True
    home: Path | None = None


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        num_pictures: how many pictures the data set holds.
        num_objects: how many objects it holds.
        notices: what was changed or left out and why, a line each with a count.
        problems: the pictures that are missing in it, each with the reason.
    """

    num_pictures: int
    num_objects: int
    notices: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


Writer = Callable[[LabelledSet, Path, WriteOptions], Written]
"""Writes a format into a folder that is new and empty."""


class Notices:
    """Counts of what a user should know, each with the first names that it happened to."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, tuple[str, ...]]] = {}

    def add(self, what: str, name: str, count: int = 1) -> None:
        """Count a thing: what happened, in the plural, and the name of the picture that it happened to."""
        if count:
            before, names = self._found.get(what, (0, ()))
            is_new = name not in names and len(names) < _EXAMPLES_SHOWN
            self._found[what] = (before + count, (*names, name) if is_new else names)

    def lines(self) -> tuple[str, ...]:
        """A line for each, in the order in which they were first seen."""
        return tuple(f"{count} {what}: {', '.join(names)}" + (", …" * (count > len(names))) for what, (count, names) in self._found.items())
