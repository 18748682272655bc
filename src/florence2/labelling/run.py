"""A labelling run from end to end: pictures are found, asked about, kept in the journal, and written in each format.

In: what a user names, and options. Out: a folder with the journal, a folder for each format, the list of problems, and a summary. The same
call goes on where an earlier one ended, however it ended. Knows nothing of the command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence2.errors import Florence2Error, InvalidRequest
from florence2.file_locks import held
from florence2.labelling.asking import Record, ask_all
from florence2.labelling.choosing import Chosen, choose
from florence2.labelling.journal import Journal, is_run, open_journal
from florence2.labelling.models import ModelChoice
from florence2.labelling.options import LabelOptions, changes
from florence2.labelling.outputs import check_outputs, keep_options, labelled_set, options_in, write_outputs
from florence2.labelling.problems import write_problems
from florence2.labelling.questions import Plan
from florence2.labelling.records import STATE, Records
from florence2.labelling.shards import file_and_part, parse_shard
from florence2.outputs import refuse_url

if TYPE_CHECKING:
    from florence2.engine.engine import Engine
    from florence2.inputs.input import Input
    from florence2.inputs.selection import Selection

PREVIEW = "preview"
OnProgress = Callable[[int, "int | None", int], object]
OnMessage = Callable[[str], None]


def _drop(line: str) -> None:
    pass


class BrokenPicture(Florence2Error):
    """A picture that could not be labelled, in a run that is to have none."""

    code = "broken_picture"


@dataclass(frozen=True)
class LabelSummary:
    """What a run has come to.

    Attributes:
        folder: its output folder.
        num_pictures: labelled pictures in the folder, of all runs.
        num_objects: objects in what was written.
        num_new: pictures that this run has labelled.
        num_problems: pictures that could not be labelled.
        outputs: the folder of each format.
        problems: the list of these; None where there are none.
        sheets: contact sheets, where they were asked for.
        is_stopped: the run was stopped before its end.
    """

    folder: Path
    num_pictures: int
    num_objects: int
    num_new: int
    num_problems: int
    outputs: dict[str, Path] = field(default_factory=dict)
    problems: Path | None = None
    sheets: list[Path] = field(default_factory=list)
    is_stopped: bool = False


def label(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    options: LabelOptions,
    *,
    model: str | os.PathLike[str] | None = None,
    adapters: Sequence[str | os.PathLike[str]] = (),
    device: str = "auto",
    precision: str = "auto",
    engine: Engine | str | None = None,
    api_key: str | None = None,
    concurrency: int | None = None,
    lists: Sequence[str] = (),
    column: str | None = None,
    selection: Selection | None = None,
    limit: int | None = None,
    shard: str | None = None,
    strict: bool = False,
    preview: bool = False,
    on_progress: OnProgress = lambda num_done, total, num_problems: None,
    on_message: OnMessage = _drop,
    is_to_stop: Callable[[], bool] = lambda: False,
) -> LabelSummary:
    """Label pictures, or go on with a run that has begun to, and write what is known of all of them.

    Args:
        inputs: files, folders (with all below them), patterns, URLs, documents, videos, ``-`` for standard input, ``@FILE`` for a list.
        output: the run's folder: new, empty, or that of the same run.
        options: what is asked, and what is made of the answers.
        model: as for ``florence2.load``; None is the demo. With an address in ``engine`` the server's name of the model.
        adapters: as for ``florence2.load``, and so are ``device`` and ``precision``.
        device: see there.
        precision: see there.
        engine: the address of a server with ``/infer/lmm``, or an engine of this process, which stays open; None to load one.
        api_key: the server's key; None for ``FLORENCE2_API_KEY`` of the environment.
        concurrency: how many requests to a server are under way at once; None for 16.
        lists: files that name more pictures.
        column: of lists that are tables, the column with paths or URLs.
        selection: which pages and frames of files that hold several; None for all pages of documents and a frame a second of videos.
        limit: at most so many pictures, the first ones that are listed.
        shard: "3/16" for the third of sixteen parts of the pictures, which other commands label.
        strict: end with the first picture that can't be labelled.
        preview: write contact sheets of the labelled pictures, too.
        on_progress: called with the pictures that are done, all that are to be done (None if that is not known), and the problems.
        on_message: called with each line that a user should know.
        is_to_stop: whether to end after the pictures under way; looked at between them.

    Raises:
        InvalidRequest: a mistake of the caller's: no picture, a folder that can't be used, something else asked than before.
        BrokenPicture: with ``strict``; all that was answered is kept.
        ModelGone, EngineClosed: there will be no more answers; all that was answered is kept.
        OSError: a file can't be written; all that was answered before is kept.
        Florence2Error: the model can't be loaded.
    """
    refuse_url(output, "output", ", or with --ray one of an object store, such as s3://bucket/run")
    plan, part, folder = Plan(options), None if shard is None else parse_shard(shard), Path(output)
    choice = ModelChoice(model, adapters, device, precision, engine, api_key, concurrency)
    for line in options.notices:
        on_message(line)
    found = _found(inputs, folder, lists, column, on_message)
    with open_journal(folder, options.asked, choice.name, part) as journal:
        for line in journal.notices:
            on_message(line)
        prepare(folder, options)
        paths = {one.name: str(one.path) for one in found if one.kind == "file"}
        chosen = choose(
            found,
            _selection(selection),
            is_done=lambda name: journal.holds(name, paths.get(file_and_part(name)[0])),
            shard=part,
            limit=limit,
        )
        work = _Work(journal, strict, on_progress, is_to_stop)
        try:
            work.do(chosen, plan, folder, lambda: choice.load(options, len(plan.first()), on_message))
        except BaseException:
            with suppress(OSError):  # a full disk has been said already
                list_problems(folder)
            raise
        if journal.changed:
            on_message(changed_line(len(journal.changed)))
        return finish(folder, options, preview, on_message, num_new=work.num_new, is_stopped=work.is_stopped)


def rebuild(
    folder: str | os.PathLike[str], options: LabelOptions | None = None, *, preview: bool = False, on_message: OnMessage = _drop
) -> LabelSummary:
    """Write the labelled pictures of a run anew, of its journals and parts alone.

    Args:
        folder: the run's.
        options: what is made of the answers; None for what was made of them before.
        preview: write contact sheets, too.
        on_message: called with each line that a user should know.

    Raises:
        InvalidRequest: there is no run in the folder, or it has asked something else.
        OSError: a file can't be written.
    """
    folder = Path(folder)
    options = options_in(folder) if options is None else options
    records = Records(folder)
    for line in records.notices:
        on_message(line)
    if changed := changes(records.header["asked"], options.asked):
        raise InvalidRequest(f"{folder} holds answers to something else: {'; '.join(changed)}; name the pictures and another output=")
    return finish(folder, options, preview, on_message)


class _Work:
    """The asking of one run, with what has come of it.

    Attributes:
        num_new: pictures that were labelled.
        num_failed: pictures that could not be.
        is_stopped: it was stopped before its end.
    """

    def __init__(self, journal: Journal, is_strict: bool, on_progress: OnProgress, is_to_stop: Callable[[], bool]) -> None:
        self.num_new = self.num_failed = 0
        self.is_stopped = False
        self._journal, self._is_strict, self._on_progress, self._is_to_stop = journal, is_strict, on_progress, is_to_stop
        self._broken: dict[str, Any] | None = None

    def do(self, chosen: Chosen, plan: Plan, folder: Path, load: Callable[[], Any]) -> None:
        """Ask about all pictures, and write the answers into the journal.

        Raises:
            BrokenPicture: one can't be labelled, and all should be.
            Florence2Error, OSError: the run can't go on.
        """
        self._on_progress(0, chosen.count, 0)
        with closing(ask_all(chosen.pictures, plan, folder, load, self._is_to_end)) as records:
            for record in records:
                if record is None:
                    self._journal.sync_if_due()
                    continue
                self._journal.append(record)
                self._count(record)
                self._on_progress(self.num_new + self.num_failed, chosen.count, self.num_failed)
        if self._broken is not None:
            raise broken(self._broken)

    def _count(self, record: dict[str, Any]) -> None:
        if "error" not in record:
            self.num_new += 1
            return
        self.num_failed += 1
        if self._is_strict and self._broken is None:
            self._broken = record

    def _is_to_end(self) -> bool:
        """Whether no more pictures are to be begun."""
        self.is_stopped = self.is_stopped or self._is_to_stop()
        return self.is_stopped or self._broken is not None


def _found(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: Path,
    lists: Sequence[str],
    column: str | None,
    notice: OnMessage,
) -> list[Input]:
    """The inputs, each once, without what the run has written itself.

    Raises:
        InvalidRequest: there is none, or what was named itself is not there.
    """
    from florence2.inputs.find import find_inputs

    given = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    words = [os.fspath(word) for word in given]
    found = find_inputs(
        words, lists, notice, is_recursive=True, are_distinct=True, column=column, output=str(output) if (output / STATE).is_dir() else None
    )
    named = set(words)
    for one in found:  # one of thousands that a list or a folder names is no mistake of this call
        if one.error is not None and (len(found) == 1 or (one.name in named and not os.path.isfile(one.name) and one.kind == "file")):
            raise one.error
    return found


def _selection(selection: Selection | None) -> Selection:
    from florence2.inputs.selection import Selection

    return Selection() if selection is None else selection


def prepare(folder: Path, options: LabelOptions) -> None:
    """Write down the options of a run that is about to begin, for who looks at it meanwhile.

    Raises:
        InvalidOption: there is a folder of a format's name that florence2 did not make.
        MissingExtra: the package for a format is not installed.
    """
    check_outputs(folder, options.formats)
    keep_options(folder, options)


def broken(record: Record) -> BrokenPicture:
    """The error that ends a run that is to have no picture like this."""
    said = "strict=True ends a run at the first picture that can't be labelled, and what was answered is kept"
    return BrokenPicture(f"{record['error']['message']} ({said})", field="strict")


def changed_line(count: int) -> str:
    """What is said of pictures whose files have changed since they were labelled."""
    are, them = ("picture has", "it was") if count == 1 else ("pictures have", "they were")
    return f"{count} {are} changed since {them} labelled, and {'is' if count == 1 else 'are'} asked about again"


def list_problems(folder: Path) -> None:
    """Write the list of problems as the answers are now."""
    if is_run(folder):
        with held(folder / STATE / "lock-options", is_waited_for=True):
            write_problems(folder, Records(folder))


def finish(
    folder: Path, options: LabelOptions, preview: bool, on_message: OnMessage, *, num_new: int = 0, is_stopped: bool = False
) -> LabelSummary:
    """List the problems of a run and write all its formats, one command after the other where several end at the same time.

    Args:
        folder: the run's.
        options: what is made of the answers.
        preview: write contact sheets, too.
        on_message: called with each line that a user should know.
        num_new: pictures that were labelled just now.
        is_stopped: the run was stopped before its end.
    """
    list_problems(folder)
    with held(folder / STATE / "lock-outputs", is_waited_for=True):
        written = write_outputs(folder, options, on_message)
        records = Records(folder)
        sheets = _sheets(folder, options) if preview and len(records) else []
    return LabelSummary(
        folder,
        num_pictures=len(records),
        num_objects=max((one.num_objects for one in written.values()), default=0),
        num_new=num_new,
        num_problems=len(records.failed),
        outputs={name: folder / name for name in written},
        problems=_problems_file(folder, records),
        sheets=sheets,
        is_stopped=is_stopped,
    )


def _problems_file(folder: Path, records: Records) -> Path | None:
    from florence2.labelling.problems import FILE

    return folder / FILE if records.failed else None


def _sheets(folder: Path, options: LabelOptions) -> list[Path]:
    """Contact sheets of the labelled pictures."""
    from florence2.labelling.contact_sheets import write_contact_sheets

    return write_contact_sheets(labelled_set(folder, options), folder / PREVIEW, seed=options.seed)
