"""Data sets that are folders with a part to learn from, a part to hold out and a part to measure on.

In: what a user gave as a data set. Out: the part that is wanted: a file, a ``YoloPart`` or a ``VocPart``. Layouts are those that exporters
write: ``train/``, ``valid/`` and ``test/`` with one file each, or one file for each part (``_annotations.train.jsonl``) side by side or in
``annotations``, YOLO and Pascal VOC data sets. Reads descriptions of data sets, but no label and no picture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from florence2.datasets.part_names import TRAIN, WHOLE, part_of_file, part_of_folder
from florence2.datasets.voc import VocPart, voc_parts
from florence2.datasets.yolo_sets import YoloPart, is_description, is_train, part_below, unnamed_labels, yolo_set
from florence2.errors import DatasetError

Part = Path | YoloPart | VocPart
"""Where a part of a data set is: the file that holds it, or the folders of a YOLO or Pascal VOC data set."""

_DATA_FILE = re.compile(r".*\.jsonl?|metadata\.[ct]sv", re.IGNORECASE)
_USUAL = re.compile(r"(_?annotations?|metadata)\b.*", re.IGNORECASE)
_ANNOTATIONS, _INSTANCES = "annotations", "instances_"
_OWN_FORMATS = ("jsonl", "coco", "yolo", "voc", "sidecar")
_OWN_FOLDER = ".florence2"


def find_part(name: str, wanted: Sequence[str]) -> Part:
    """What a name means: of a folder the first wanted part that it has, of anything else the file itself.

    A folder without parts that holds a single data file is that file.

    Raises:
        DatasetError: the folder has none of the parts, or more than one file that could be it.
    """
    path = Path(name)
    if not path.is_dir() and not (is_description(path) and path.is_file()):
        return path
    parts, absent = _parts(path)
    for part in (*wanted, WHOLE):
        if part in parts:
            return parts[part]
    alone = None if parts else part_below(path)
    if alone is not None:
        return alone
    if not parts and (labels := unnamed_labels(path)) is not None:
        raise DatasetError(f"{labels} holds labels of YOLO, but nothing names their classes: put a data.yaml or a classes.txt into {name}")
    has = f"it has {', '.join(parts)} ({_name_of(next(iter(parts.values())))})" if parts else "there is no data file in it"
    names = f", and its data.yaml names {', '.join(absent)}, which is not there or empty" if absent else ""
    raise DatasetError(
        f"the folder {name} has no {' or '.join(wanted)}: {has}{names}; expected a folder of that name with a .jsonl or COCO .json file in "
        "it, a YOLO data set with a data.yaml, Pascal VOC, or give the file itself"
    )


def _name_of(part: Part) -> Path:
    """A name under which the part can be given."""
    return part.sources[0] if isinstance(part, YoloPart) else part.folder if isinstance(part, VocPart) else part


def part_of(name: str, part: str) -> Part | None:
    """A folder's part; None where the name is no folder, has no such part, or learns from it, too. Errors as in ``find_part``."""
    path = Path(name)
    if not path.is_dir() and not (is_description(path) and path.is_file()):
        return None
    parts, _ = _parts(path)
    found = parts.get(part)
    yolo = {name: one for name, one in parts.items() if isinstance(one, YoloPart)}
    return None if part != TRAIN and isinstance(found, YoloPart) and is_train(found, yolo) else found


def _parts(path: Path) -> tuple[Mapping[str, Part], Sequence[str]]:
    """The parts that a folder or a description has, by their names, and what a description names and is not there."""
    if (found := yolo_set(path)) is not None:
        return found.parts, found.absent
    if (path / _OWN_FOLDER).is_dir():  # what `florence2 label` wrote: the formats hold the same labels
        own = next((path / name for name in _OWN_FORMATS if (path / name).is_dir()), None)
        if own is not None:
            return _parts(own)
        formats = ", ".join(entry.name for entry in _visible(path) if entry.is_dir()) or "none yet"
        raise DatasetError(f"{path} is what florence2 label wrote, in formats that are not read ({formats}): the format jsonl adds one")
    files = _files_of_parts(path)
    if files:
        return files, ()
    alone = _data_file(path) or _data_file(path / _ANNOTATIONS)
    if alone is not None:
        return {WHOLE: alone}, ()
    if voc := voc_parts(path):
        return voc, ()
    inner = [entry for entry in _visible(path) if entry.is_dir()]
    return _parts(inner[0]) if len(inner) == 1 else ({}, ())  # what an archive was unpacked into


def _files_of_parts(folder: Path) -> dict[str, Path]:
    """The files of a folder's parts."""
    found: dict[str, Path] = {}
    for entry in _visible(folder):
        part, file = _part_in(entry)
        new = {} if part is None or file is None else {part: file}
        for part, file in (_files_of_parts(entry) if entry.is_dir() and entry.name == _ANNOTATIONS else new).items():
            if part in found:
                raise DatasetError(f"{found[part]} and {file} are both the part {part} of {folder}; give the files themselves")
            found[part] = file
    return found


def _part_in(entry: Path) -> tuple[str | None, Path | None]:
    """The part that an entry of a folder is by its name, and its data file."""
    if entry.is_dir():
        part = part_of_folder(entry.name)
        return part, None if part is None else _data_file(entry)
    return (part_of_file(entry.stem), entry) if _DATA_FILE.fullmatch(entry.name) else (None, None)


def _data_file(folder: Path) -> Path | None:
    """The only data file of a folder; where others lie beside it, the only one that is named as annotations usually are."""
    files = [entry for entry in _visible(folder) if _DATA_FILE.fullmatch(entry.name) and entry.is_file()] if folder.is_dir() else []
    usual = [file for file in files if _USUAL.fullmatch(file.name)]
    chosen = usual or files
    if len(chosen) > 1:
        raise DatasetError(f"{folder} holds {' and '.join(file.name for file in chosen)}; give the one that is meant")
    return chosen[0] if chosen else None


def _visible(folder: Path) -> list[Path]:
    """What a folder holds, without what operating systems leave in it; of COCO's own annotations those of instances alone."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX")))
    except OSError as error:
        raise DatasetError(f"the folder {folder} can't be read: {error.strerror}") from error
    instances = [entry for entry in entries if entry.name.startswith(_INSTANCES)] if folder.name == _ANNOTATIONS else []
    return instances or entries
