"""A labelling run on Ray Data: ``florence2 label --ray``, and the same from Python.

In: what ``florence2.labelling.label`` takes, and a cluster; without one Ray starts on this machine. Out: parts in the run's folder, which
may be one of an object store, and where it is not, the formats that a run on one machine writes. Either kind of run goes on with the
other's. Knows nothing of the command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence2.background import in_background
from florence2.errors import InvalidOption, InvalidRequest
from florence2.extras import requires
from florence2.inputs import urls
from florence2.inputs.find import PATTERN
from florence2.inputs.input import Input
from florence2.inputs.lists import STDIN, is_list, read_list
from florence2.inputs.looking import absolute, from_stdin, looked_at
from florence2.inputs.media import missing_reader
from florence2.inputs.selection import Selection
from florence2.labelling.journal import open_parts
from florence2.labelling.models import DEMO_ANSWERS, ModelChoice
from florence2.labelling.options import LabelOptions
from florence2.labelling.part_files import is_url
from florence2.labelling.run import LabelSummary, OnMessage, OnProgress, broken, changed_line, finish, list_problems, prepare
from florence2.labelling.served import DEFAULT_CONCURRENCY
from florence2.openmp import THREADS
from florence2.outputs import refuse_url

if TYPE_CHECKING:
    from florence2.cluster.ledger import State
    from florence2.labelling.answering import AnsweringModel
    from florence2.labelling.parts import PartsFolder
    from florence2.weights.defaults import ImageSettings

_LOOK_S = 0.5
_MOST_PASSES = 3
_FORMATS = ("jsonl",)


def label_on_ray(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    options: LabelOptions,
    *,
    address: str | None = None,
    engines: int | None = None,
    model: str | os.PathLike[str] | None = None,
    adapters: Sequence[str | os.PathLike[str]] = (),
    device: str = "auto",
    precision: str = "auto",
    engine: str | None = None,
    api_key: str | None = None,
    concurrency: int | None = None,
    lists: Sequence[str] = (),
    column: str | None = None,
    selection: Selection | None = None,
    limit: int | None = None,
    strict: bool = False,
    preview: bool = False,
    on_progress: OnProgress = lambda num_done, total, num_problems: None,
    on_message: OnMessage = lambda line: None,
    is_to_stop: Callable[[], bool] = lambda: False,
) -> LabelSummary | StoredSummary:
    """Label pictures on a cluster, or go on with a run that has begun to, with or without one.

    Arguments that are not named here are those of ``florence2.labelling.label``, and so are the errors. Local paths are those of a file
    system that all nodes share, and so is a local output.

    Args:
        inputs: as there; also files, folders and patterns in object stores, such as ``s3://bucket/photos``.
        output: the run's folder; or one in an object store, which holds parts alone.
        options: what is asked, and what is made of the answers.
        address: of a Ray cluster: "auto", "ray://host:10001", "host:6379"; None for the one that this process is connected to, or else to
            start Ray on this machine.
        engines: the most engines; None for one on each GPU, or where there is none, one on each node.
        model: as there, and so are the following.
        adapters: see there.
        device: see there.
        precision: see there.
        engine: the address of a server that every node reaches.
        api_key: see there.
        concurrency: how many requests each worker has under way at that server.
        lists: see there; lists may lie in object stores, too.
        column: see there.
        selection: see there.
        limit: see there.
        strict: see there.
        preview: see there; not with an output in an object store.
        on_progress: called about twice a second.
        on_message: see there.
        is_to_stop: see there.

    Raises:
        MissingExtra: the extra ``cluster`` is not installed.
    """
    with requires("cluster", "labelling on a cluster"):
        import ray
        import ray.data  # noqa: F401

        from florence2.cluster import pipeline
        from florence2.cluster.listing import Named
    choice = ModelChoice(model, adapters, device, precision, engine, api_key, concurrency)
    target = os.fspath(output)
    folder = None if is_url(target) else Path(target)
    if folder is not None:
        refuse_url(target, "output", ", or one of an object store as text, such as 's3://bucket/run'")
    _check(options, folder, preview, engines, engine)
    for line in options.notices:
        on_message(line)
    named = Named(*_read_here(inputs, lists), column, None if folder is None else str(folder), selection or Selection(), limit)
    settings = _image_settings(choice, options)
    with open_parts(target, options.asked, choice.name) as parts:
        if folder is not None:
            prepare(folder, options)
        if model is None:
            on_message(DEMO_ANSWERS)
        run = _Run(named, options, choice, parts, folder, target, settings, strict, on_progress, on_message, is_to_stop)
        try:
            with pipeline.connected(address):
                state = run.do(engines)
        except BaseException:
            if folder is not None:
                with suppress(OSError):  # a full disk has been said already
                    list_problems(folder)
            raise
        return _summary(state, run, options, preview)


@dataclass(frozen=True)
class StoredSummary:
    """What a run has come to whose output lies in an object store; attributes as of ``LabelSummary``.

    Attributes:
        folder: the output's URL.
        num_pictures: labelled pictures in it, of all runs.
        num_new: pictures that this run has labelled.
        num_problems: pictures that could not be labelled.
        outputs: the URL of its parts, as ``parts``.
        is_stopped: the run was stopped before its end.
    """

    folder: str
    num_pictures: int
    num_new: int
    num_problems: int
    outputs: dict[str, str]
    is_stopped: bool
    num_objects: None = None
    problems: None = None
    sheets: Sequence[Path] = ()


@dataclass
class _Run:
    """One run, while it is connected to a cluster.

    Attributes:
        is_stopped: it was stopped before its end.
    """

    named: Any
    options: LabelOptions
    choice: ModelChoice
    parts: PartsFolder
    folder: Path | None
    target: str
    settings: ImageSettings | None
    is_strict: bool
    on_progress: OnProgress
    on_message: OnMessage
    is_to_stop: Callable[[], bool]
    is_stopped: bool = False

    def do(self, num_engines: int | None) -> State:
        """Do the run, and return how far it has come.

        Raises:
            Florence2Error, OSError: the run can't go on.
        """
        import ray

        from florence2.cluster import pipeline
        from florence2.cluster.reading import Reader

        capacity = (self.choice.concurrency or DEFAULT_CONCURRENCY) if self.choice.engine is not None else None
        plan = pipeline.workers(num_engines, self.choice.device, capacity)
        if (lack := pipeline.lack_of_room(plan)) is not None:
            self.on_message(lack)
        ledger = pipeline.open_ledger(self.named, self._absolute(self.target), os.getcwd(), plan.num_ahead, is_strict=self.is_strict)
        if self.named.limit is None:
            ledger.count.remote()
        keeps = None if self.folder is None else self.folder.absolute()
        reader = Reader(ledger, self.named.selection, self.settings, keeps)
        load = partial(load_model, self.choice, plan.num_threads)
        state, num_passes = None, 0
        while state is None or (num_passes < _MOST_PASSES and ray.get(ledger.again.remote())):
            stages = pipeline.dataset(ledger, plan, reader, load, self.options, keeps, self.parts)
            state = self._watched(ledger, in_background("florence2-ray", partial(pipeline.consume, stages)))
            num_passes += 1
        if state.num_open and not self.is_stopped:
            self.on_message(f"{state.num_open} groups of pictures were lost with their workers; the same command goes on with them")
        return state

    def _watched(self, ledger: Any, running: Any) -> State:
        """How far a run is at its end; reports it meanwhile.

        Raises:
            Florence2Error, OSError: the run can't go on.
        """
        import ray

        while True:
            has_ended = running.done()
            state: State = ray.get(ledger.state.remote())
            for line in state.notices:
                self.on_message(line)
            self.on_progress(state.num_new + state.num_failed + state.num_answered, state.total, state.num_failed)
            if has_ended:
                break
            if not self.is_stopped and self.is_to_stop():
                self.is_stopped = True
                ray.get(ledger.stop.remote())
                state = ray.get(ledger.state.remote())
                if not state.has_engine:
                    return state  # there may never be room for one; any that comes does nothing
            _wait(running)
        if state.error is not None:
            raise state.error
        if state.broken is not None:
            raise broken(state.broken)
        running.result()
        return state

    @staticmethod
    def _absolute(target: str) -> str:
        return target if is_url(target) else os.path.abspath(target)


def load_model(choice: ModelChoice, num_threads: int, options: LabelOptions, num_prompts: int) -> tuple[AnsweringModel, str]:
    """The model of a worker, and the digest of its weights; empty for one behind a server.

    Args:
        choice: which model.
        num_threads: with which it computes at most, unless the user has said how many by ``OMP_NUM_THREADS``.
        options: of the run.
        num_prompts: how many prompts each picture has.
    """
    if choice.engine is None:
        _take_threads(num_threads)
    model = choice.load(options, num_prompts, lambda line: None)
    if choice.engine is not None:
        return model, ""
    from florence2.weights.checkpoint import read_checkpoint
    from florence2.weights.digest import model_digest
    from florence2.weights.source import resolve

    return model, model_digest(read_checkpoint(resolve(choice.named)), choice.adapters)


def _take_threads(num_threads: int) -> None:
    """Have the engine of this actor use so many threads, and fewer while others compute.

    Ray gives each actor as many as it has whole processors: none of those that the readers of a small machine leave idle.
    """
    import ray

    of_ray = max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
    if os.environ.get(THREADS) != str(of_ray):
        return
    import torch

    import florence2.engine  # noqa: F401 - imports PyTorch with threads that soon sleep

    del os.environ[THREADS]
    torch.set_num_threads(num_threads)


def _check(options: LabelOptions, folder: Path | None, preview: bool, engines: int | None, engine: object) -> None:
    """Refuse what does not go together.

    Raises:
        InvalidOption: what does not.
    """
    if engines is not None and engines < 1:
        raise InvalidOption(f"engines must be at least 1, got {engines}", field="engines")
    if engine is not None and not isinstance(engine, str):
        raise InvalidOption("engine= must be the address of a server with ray=, as an engine of this process can't travel", field="engine")
    if folder is not None:
        return
    if tuple(options.formats) != _FORMATS:
        raise InvalidOption(
            "an output in an object store holds parts in Parquet alone, and no format=; copy it to a folder of this machine "
            "and build formats there, or choose such a folder for output=",
            field="formats",
        )
    if preview:
        raise InvalidOption("preview= writes into a folder of this machine, and the output lies in an object store", field="preview")


def _read_here(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], lists: Sequence[str]
) -> tuple[list[str | Input], list[str | Sequence[str]]]:
    """Words and lists, standard input read already.

    Raises:
        InvalidRequest: nothing is named, or what is named is not there.
    """
    words = [os.fspath(word) for word in ([inputs] if isinstance(inputs, (str, os.PathLike)) else inputs)]
    if not words and not lists:
        raise InvalidRequest("no image is given: name files, folders, patterns or URLs, - for standard input, or a list with --list")
    if [*words, *lists].count(STDIN) > 1:
        raise InvalidRequest("- is given more than once, and standard input can be read once", field="image")
    for word in words:
        if word != STDIN and not os.path.lexists(word) and not _is_elsewhere(word):
            error = looked_at(Input(word, path=absolute(word))).error
            if error is not None:
                raise error
    read = [from_stdin() if word == STDIN else word for word in words]
    return read, [read_list(STDIN) if name == STDIN else name for name in lists]


def _is_elsewhere(word: str) -> bool:
    """Whether a word that is no file's name may name pictures even so."""
    is_address = urls.is_url(word) or is_url(word) or word[:5].lower() in ("data:", "file:")
    return is_address or is_list(word) or PATTERN.search(word) is not None


def _image_settings(choice: ModelChoice, options: LabelOptions) -> ImageSettings | None:
    """The size to which workers bring pictures; None where that would lose something: of tiles, and for servers, which do it themselves.

    Raises:
        Florence2Error: there is no such model.
    """
    if choice.engine is not None:
        return None
    with requires("engine", "labelling without a server"):
        from florence2.weights.checkpoint import read_checkpoint
        from florence2.weights.source import resolve
    checkpoint = read_checkpoint(resolve(choice.named))
    return None if options.tiles else checkpoint.image


def _wait(running: Any) -> None:
    """Wait for the end, but not for long."""
    from concurrent.futures import wait

    wait([running], timeout=_LOOK_S)


def _summary(state: State, run: _Run, options: LabelOptions, preview: bool) -> LabelSummary | StoredSummary:
    """What the run has come to.

    Raises:
        InvalidRequest: nothing that was named is a picture.
    """
    for medium in ("pdf", "video"):
        if count := state.num_left_out[medium]:
            run.on_message(f"left out {_files(count)}: {missing_reader(medium)}")
    if count := state.num_left_out["picture"]:
        run.on_message(f"left out {_files(count)} that {'is no picture' if count == 1 else 'are no pictures'}")
    if state.num_listed == state.num_left_out.total() and not run.is_stopped:
        raise InvalidRequest(f"no picture among {_files(state.num_listed)} of what is named", field="image")
    if state.num_changed:
        run.on_message(changed_line(state.num_changed))
    if run.folder is not None:
        return finish(run.folder, options, preview, run.on_message, num_new=state.num_new, is_stopped=run.is_stopped)
    done = run.parts.done_ids()
    return StoredSummary(
        run.target,
        num_pictures=len(done),
        num_new=state.num_new,
        num_problems=len(run.parts.failed_ids()),
        outputs={"parts": run.parts.folder},
        is_stopped=run.is_stopped,
    )


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
