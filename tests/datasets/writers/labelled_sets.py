"""Labelled sets for tests of writers, and what lies in a folder."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

from florence2.datasets.labelled import LabelledObject, LabelledPicture, LabelledSet

CLASSES = ("car", 'a "b": >c & d', "größe, = 🐱")


def picture_bytes(size=(64, 48), form="PNG", orientation=1, seed=0):
    """A picture of smooth noise as a file; with another orientation it is stored turned."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    stored = size if orientation < 5 else size[::-1]
    image, exif = Image.fromarray(small).resize(stored), Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    if form == "HEIC":
        pillow_heif.from_pillow(image).save(file, exif=exif.tobytes())
        return file.getvalue()
    image.save(file, form, **({"exif": exif} if orientation != 1 else {}))
    return file.getvalue()


def labelled_set(pictures: Sequence[LabelledPicture], classes: Sequence[str] = CLASSES) -> LabelledSet:
    """A set of these pictures."""
    return LabelledSet(lambda: iter(pictures), classes, len(pictures), {"model": "demo", "version": "0.1"})


def thing(label="car", box=(8.0, 6.0, 40.0, 30.0), **fields) -> LabelledObject:
    """An object."""
    return LabelledObject(label, box, **fields)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder with their content."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
