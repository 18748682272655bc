"""What a labelling run leaves in its folder: the labelled pictures in each format, built from its records as a whole.

In: a run's folder and its options. Out: a folder for each format. It is built aside and put in its place by renaming, so that a format is
always one whole data set, the old or the new; what a kill leaves between is mended by the next start. A folder that florence2 did not make
is never replaced. One that was changed since, or that holds pictures whose files are gone, is kept beside the new one. Knows nothing of
what formats look like.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from florence2.datasets import writers
from florence2.datasets.labelled import LabelledSet
from florence2.datasets.writers import WriteOptions, check_installed
from florence2.datasets.writers.written import Written
from florence2.errors import InvalidOption
from florence2.file_locks import held
from florence2.labelling.changed_files import fingerprint, new_name
from florence2.labelling.labelled_pictures import Pictures, set_of
from florence2.labelling.options import LabelOptions, options_of
from florence2.labelling.records import STATE, header_in, no_run

_OPTIONS = "options.json"
_OWN = "formats.json"
_BUILDING, _READY, _OLD = "building-", "ready-", "old-"
_PROBLEMS_SHOWN = 3
_WITH_PIXELS = ("parquet", "webdataset")

Notice = Callable[[str], None]


def labelled_set(folder: str | os.PathLike[str], options: LabelOptions | None = None) -> LabelledSet:
    """The labelled pictures of a run, also of one that is not at its end.

    Args:
        folder: the run's.
        options: what is made of the answers; None for the options of the run itself.

    Raises:
        DatasetError: there is no journal in the folder, or it can't be read.
    """
    folder = Path(folder)
    options = options_in(folder) if options is None else options
    return set_of(Pictures(folder, options), options)


def write_outputs(folder: Path, options: LabelOptions, notice: Notice) -> dict[str, Written]:
    """Write the labelled pictures of a run in each of its formats, and return what each holds; none where no picture was labelled.

    Args:
        folder: the run's.
        options: its options.
        notice: called with a line on what was left out, and what else a user should know.

    Raises:
        DatasetError: there is no journal in the folder, or it can't be read.
        InvalidOption: there is a folder of a format's name that florence2 did not make.
        OSError: a format can't be written; that folder is as it was before.
    """
    check_outputs(folder, options.formats)
    mend(folder, notice)
    keep_options(folder, options)
    pictures = Pictures(folder, options)
    if not len(pictures.records):
        notice("no picture was labelled, and no format is written")
        return {}
    data = set_of(pictures, options)
    for line in pictures.losses.lines():
        notice(line)
    if unused := pictures.unused_names():
        shown = ", ".join(map(repr, unused[:5])) + (", …" if len(unused) > 5 else "")
        notice(f"nothing was called {shown}, which the class map names; the classes are {', '.join(data.classes[:20])}")
    told: dict[str, list[str]] = {}  # what is to be said of several formats is said once
    try:
        written = {name: _write(folder, name, data, options, notice, told) for name in options.formats}
    finally:
        for line, names in told.items():
            notice(f"{', '.join(names)}: {line}")
    stale = sorted(_own_formats(folder).keys() - set(options.formats))
    if stale:
        is_one = len(stale) == 1
        notice(
            f"{', '.join(stale)} in {folder} {'was' if is_one else 'were'} written earlier and {'is' if is_one else 'are'} left as before"
        )
    return written


def check_outputs(folder: Path, formats: Sequence[str]) -> None:
    """Refuse formats whose folders are there and were not made by florence2, before anything long begins.

    Raises:
        InvalidOption: there is one.
        MissingExtra: the package for a format is not installed.
    """
    check_installed(formats)
    own = _own_formats(folder)
    for name in formats:
        if name not in own and os.path.lexists(folder / name):
            raise InvalidOption(
                f"{folder / name} is there and was not made by florence2 label; move it, or choose another --output", field="output"
            )


def keep_options(folder: Path, options: LabelOptions) -> None:
    """Write down what is made of the answers, for who looks at the run without its flags."""
    (folder / STATE).mkdir(parents=True, exist_ok=True)
    with held(folder / STATE / "lock-options", is_waited_for=True):  # one command may begin while another one ends
        _replace(folder / STATE / _OPTIONS, {"asked": options.asked, "written": options.written})


def mend(folder: Path, notice: Notice) -> None:
    """Put right what a run that was killed while it wrote left: a format is the whole new one where that was ready, else the old one."""
    state = folder / STATE
    for path in sorted(state.glob(f"{_READY}*")):
        _put_in_place(folder, path.name.removeprefix(_READY), notice)
    for path in sorted(state.glob(f"{_OLD}*")):
        place = folder / path.name.removeprefix(_OLD)
        _remove(path) if os.path.lexists(place) else path.rename(place)
    for path in sorted(state.glob(f"{_BUILDING}*")):
        _remove(path)


def _write(folder: Path, name: str, data: LabelledSet, options: LabelOptions, notice: Notice, told: dict[str, list[str]]) -> Written:
    """Write a format aside, and put it in its place; ``told`` takes what is to be said of it."""
    building = folder / STATE / f"{_BUILDING}{name}"
    building.mkdir()
    place = (folder / name).absolute()
    try:
        asked = WriteOptions(images=options.images, segments=options.segments, scores=options.scores, home=place)  # type: ignore[arg-type]
        written = writers.FORMATS[name](data, building, asked)
    except BaseException as error:
        _remove(building)
        if isinstance(error, OSError):
            what = f"{error.strerror or error}; " + ("the folder is as it was before" if place.exists() else "nothing is written there")
            raise OSError(error.errno, what, str(place)) from error
        raise
    lines = [*written.notices, *map(str, written.problems[:_PROBLEMS_SHOWN])]
    if (num_more := len(written.problems) - _PROBLEMS_SHOWN) > 0:
        lines.append(f"{num_more} more {'picture is' if num_more == 1 else 'pictures are'} left out for such a reason")
    for line in lines:
        told.setdefault(line, []).append(name)
    own = _own_formats(folder)
    before = _entry_of(place, own.get(name, []))
    new = {
        "print": fingerprint(building, are_linked=options.images == "link"),
        "images": options.images,
        "missing": sorted(str(problem.where) for problem in written.problems),
    }
    _replace(folder / STATE / _OWN, {**own, name: [*([before] if before else []), new]})
    building.rename(folder / STATE / f"{_READY}{name}")
    _put_in_place(folder, name, notice)
    return written


def _put_in_place(folder: Path, name: str, notice: Notice) -> None:
    """Replace a format's folder by the one that is ready; killed at any moment, ``mend`` goes on."""
    place, ready, old = folder / name, folder / STATE / f"{_READY}{name}", folder / STATE / f"{_OLD}{name}"
    if os.path.lexists(place):
        known = _own_formats(folder).get(name, [])
        before = _entry_of(place, known)
        if before is None:
            old = new_name(folder, f"{name}-changed")
            notice(f"{place} was changed since it was written; it is kept as {old}")
        elif lost := _num_lost(name, before, known[-1]):
            old = new_name(folder, f"{name}-before")
            holds = f"{lost} {'picture' if lost == 1 else 'pictures'} whose {'file is' if lost == 1 else 'files are'} gone"
            notice(f"{place} may be the last that holds {holds}; it is kept as {old}")
        else:
            _remove(old)
        place.rename(old)
    ready.rename(place)
    if old.parent != folder:
        _remove(old)


def _entry_of(place: Path, known: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What was noted of a folder when it was written; None for one that was changed since."""
    return next((entry for entry in known if fingerprint(place, are_linked=entry["images"] == "link") == entry["print"]), None)


def _num_lost(name: str, before: dict[str, Any], new: dict[str, Any]) -> int:
    """How many pictures, themselves or by a hard link, may be in the folder of before, and can't be read any more for the new one."""
    if before["images"] == "leave" and name not in _WITH_PIXELS:
        return 0
    return len(set(new["missing"]) - set(before["missing"]))


def _remove(path: Path) -> None:
    """Remove a folder, or a file in its place; links in it are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(content, ensure_ascii=True, indent=1) + "\n", encoding="utf-8")
    new.replace(path)


def _own_formats(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The formats that florence2 has written in a run's folder, with what is noted of the folder that is there and of the one to come."""
    found = _read(folder / STATE / _OWN)
    if not isinstance(found, dict):
        return {}
    return {
        name: [entry for entry in entries if isinstance(entry, dict) and {"print", "images", "missing"} <= entry.keys()]
        for name, entries in found.items()
        if isinstance(entries, list)
    }


def options_in(folder: Path) -> LabelOptions:
    """The options of a run, as it wrote them down; those of its journal's header where it did not."""
    kept = _read(folder / STATE / _OPTIONS)
    if isinstance(kept, dict):
        return options_of(kept.get("asked", {}), kept.get("written", {}))
    if (header := header_in(folder)) is None:
        raise no_run(folder)
    return options_of(header["asked"], {})


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
