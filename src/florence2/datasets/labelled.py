"""Labelled pictures: what was found in each picture of a data set that is being made, as every writer of a format takes it.

In: nothing; values only. Coordinates are floats in pixels of the upright picture, x before y. Knows nothing of models, of how the pictures
were labelled, and of files but where a picture's is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from florence2.results import Box, Outline

Split = Literal["train", "val"]


@dataclass(frozen=True)
class LabelledObject:
    """One object of a picture.

    Attributes:
        label: the name of its class, one of ``LabelledSet.classes``.
        box: x1, y1, x2, y2; of polygons the smallest box around them.
        polygons: its outlines, each a flat x, y, x, y, …; of a quad the four corners. Empty where only the box is known.
        score: how likely it is right, 0 to 1; None where nobody asked.
        text: what is read there or said of it (OCR, captions of regions), which is no class; empty where there is none.
        task: the tag of the task that found it.
    """

    label: str
    box: Box
    polygons: tuple[Outline, ...] = ()
    score: float | None = None
    text: str = ""
    task: str = ""


@dataclass(frozen=True)
class LabelledPicture:
    """One picture with everything that was found in it.

    Attributes:
        name: its name in the data set: parts separated by ``/``, with the suffix of its file; no two pictures of a set have the same
            name without the suffix, in upper or lower case and in any Unicode form.
        file: the file with its pixels; an absolute path.
        size: width and height of the upright picture in pixels.
        objects: what was found, in the order of the tasks and of generation.
        texts: answers that are texts, by their prompt: captions, and OCR without regions.
        examples: prompts with their answers as ``florence2 train`` learns them.
        split: the part of the data set that it belongs to.
        where: where it came from, as its user knows it: a path, a URL, a page of a document, a time of a video.
        num_bytes: how long its file was when it was labelled; None where that is not known, or the file was made by the run itself.
    """

    name: str
    file: Path
    size: tuple[int, int]
    objects: tuple[LabelledObject, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    examples: tuple[tuple[str, str], ...] = ()
    split: Split = "train"
    where: str = ""
    num_bytes: int | None = None


@dataclass(frozen=True)
class LabelledSet:
    """All labelled pictures, read anew for each pass over them, so that no list of them is held.

    Attributes:
        pictures: gives an iterator over the pictures, the same each time.
        classes: the names of the classes; an object's class id is the index of its label.
        num_pictures: how many there are.
        info: what made the labels, as JSON: model, prompts, options, the version of this package.
    """

    pictures: Callable[[], Iterator[LabelledPicture]]
    classes: Sequence[str]
    num_pictures: int
    info: Mapping[str, Any] = field(default_factory=dict)
