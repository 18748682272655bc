"""The names that parts of data sets have: what is learnt, what is held out, and what is measured on.

In: the name of a folder, a file or a key as some other system wrote it. Out: the part that it means. Reads nothing.
"""

from __future__ import annotations

import re

TRAIN, VALID, TEST = "train", "valid", "test"
WHOLE = ""
"""A data set that has no parts."""
_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "valid": VALID,
    "val": VALID,
    "validation": VALID,
    "dev": VALID,
    "test": TEST,
    "testing": TEST,
}
_NAME = rf"({'|'.join(_NAMES)})"
_NUMBERED = re.compile(rf"{_NAME}\d*", re.IGNORECASE)
_LAST_WORD = re.compile(rf"(?:.*[._-])?{_NAME}\d*", re.IGNORECASE)


def part_of_folder(name: str) -> str | None:
    """The part that a folder or a key of that name is, such as ``val`` or ``train2017``; None where it is none."""
    match = _NUMBERED.fullmatch(name)
    return _NAMES[match[1].lower()] if match else None


def part_of_file(stem: str) -> str | None:
    """The part that a file is, by the last word of its name without suffix, such as ``_annotations.valid``; None where it is none."""
    match = _LAST_WORD.fullmatch(stem)
    return _NAMES[match[1].lower()] if match else None
