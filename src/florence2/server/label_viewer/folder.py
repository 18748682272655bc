"""The folder of a label run as the source of a page.

In: the folder that ``florence2 label`` had as ``--output``, also of a run that is not at its end. Out: a ``Source``. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from florence2.datasets.labelled import LabelledSet
from florence2.errors import InvalidOption
from florence2.labelling.journal import is_run
from florence2.labelling.outputs import labelled_set
from florence2.labelling.records import JOURNALS, STATE, Records
from florence2.server.label_viewer.index import Problem
from florence2.server.label_viewer.run import Source


def source_of(folder: Path) -> Source:
    """The source of a run's folder.

    Raises:
        InvalidOption: it is not the folder of a label run.
    """
    if not is_run(folder):
        raise InvalidOption(_complaint(folder), field="folder")
    return Source(folder.absolute().name or str(folder), partial(_read, folder), partial(_stamp, folder))


def _complaint(folder: Path) -> str:
    """What to say of a folder without a journal."""
    if not folder.is_dir():
        return f"{folder} is {'no folder' if folder.exists() else 'not there'}; give the folder that florence2 label had as --output"
    near = next((one for one in (*folder.absolute().parents[:2], *_folders_in(folder)) if is_run(one)), None)
    advice = "give the folder that florence2 label had as --output" if near is None else f"did you mean {near}?"
    return f"{folder} holds no label run: there is neither {STATE}/journal.jsonl nor {STATE}/parts in it; {advice}"


def _folders_in(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(one for one in folder.iterdir() if one.is_dir())
    except OSError:
        return


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Size and time of change of all that the labelled pictures are read from."""
    found = []
    state = folder / STATE
    for path in (*sorted(state.glob(JOURNALS)), *sorted(state.glob("parts/*.parquet")), state / "options.json"):
        try:
            status = path.stat()
        except OSError:  # not there, or gone since
            continue
        found.append((path.name, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _read(folder: Path) -> tuple[LabelledSet, Iterator[Problem]]:
    return labelled_set(folder), _problems(folder)


def _problems(folder: Path) -> Iterator[Problem]:
    """The pictures of a run that could not be labelled."""
    for record in Records(folder).failures():
        error = record["error"]
        yield Problem(record.get("name") or record["id"], _where(record), _file(folder, record), str(error.get("message") or error))


def _where(record: dict[str, Any]) -> str:
    return str(record.get("url") or record.get("path") or record["id"])


def _file(folder: Path, record: dict[str, Any]) -> Path | None:
    """The file with the pixels of a picture, if there is one."""
    if record.get("file"):
        return folder / record["file"]
    return Path(record["path"]) if record.get("path") and not record.get("part") else None
