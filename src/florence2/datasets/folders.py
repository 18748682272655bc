"""Data sets that are folders with a part to learn from, a part to hold out and a part to measure on.

In: what a user gave as a data set. Out: the file of the part that is wanted. Layouts are those of Roboflow's exports (COCO and
JSONL), of maestro and of what autodistill's users build: ``train/``, ``valid/`` and ``test/`` with one file each, or one file for each
part (``_annotations.train.jsonl``) side by side. Reads no file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from florence2.errors import DatasetError

TRAIN, VALID, TEST = "train", "valid", "test"
_NAMES = {"train": TRAIN, "training": TRAIN, "valid": VALID, "val": VALID, "validation": VALID, "test": TEST, "testing": TEST}
_PART = re.compile(rf"(?:.*[._-])?({'|'.join(_NAMES)})", re.IGNORECASE)
_ENDINGS = (".jsonl", ".json")
_USUAL = re.compile(r"_?annotations?\b.*", re.IGNORECASE)


def file_of(name: str, wanted: Sequence[str]) -> str:
    """The file that a name means: of a folder the file of the first wanted part that it has, of anything else the name itself.

    A folder without parts that holds a single data file is that file.

    Raises:
        DatasetError: the folder has none of the parts, or more than one file that could be it.
    """
    folder = Path(name)
    if not folder.is_dir():
        return name
    parts = _parts(folder)
    for part in wanted:
        if part in parts:
            return str(parts[part])
    alone = None if parts else _data_file(folder)
    if alone is not None:
        return str(alone)
    has = f"it has {', '.join(parts)}" if parts else "there is no data file in it"
    raise DatasetError(
        f"the folder {name} has no {' or '.join(wanted)}: {has}; expected a folder of that name with a .jsonl or COCO .json file in it, "
        "or give the file itself"
    )


def part_of(name: str, part: str) -> str | None:
    """The file of a folder's part; None where the name is no folder or has no such part. Errors as in ``file_of``."""
    folder = Path(name)
    file = _parts(folder).get(part) if folder.is_dir() else None
    return None if file is None else str(file)


def _parts(folder: Path) -> dict[str, Path]:
    """The files of a folder's parts, by the part."""
    found: dict[str, Path] = {}
    for entry in _visible(folder):
        if entry.is_dir():
            part, file = _NAMES.get(entry.name.lower()), None
            if part is not None:
                file = _data_file(entry)
        else:
            match = _PART.fullmatch(entry.stem) if entry.suffix.lower() in _ENDINGS else None
            part, file = (_NAMES[match.group(1).lower()], entry) if match else (None, None)
        if part is not None and file is not None:
            if part in found:
                raise DatasetError(f"{found[part]} and {file} are both the part {part} of {folder}; give the files themselves")
            found[part] = file
    inner = [entry for entry in _visible(folder) if entry.is_dir()]
    if not found and len(inner) == 1 and _data_file(folder) is None:  # what an archive was unpacked into
        return _parts(inner[0])
    return found


def _data_file(folder: Path) -> Path | None:
    """The only data file of a folder; where others lie beside it, the only one that is named as annotations usually are."""
    files = [entry for entry in _visible(folder) if entry.suffix.lower() in _ENDINGS and entry.is_file()]
    usual = [file for file in files if _USUAL.fullmatch(file.name)]
    chosen = usual or files
    if len(chosen) > 1:
        raise DatasetError(f"{folder} holds {' and '.join(file.name for file in chosen)}; give the one that is meant")
    return chosen[0] if chosen else None


def _visible(folder: Path) -> list[Path]:
    """What a folder holds, without what operating systems leave in it."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX")))
    except OSError as error:
        raise DatasetError(f"the folder {folder} can't be read: {error.strerror}") from error
