"""``evaluate``: a model and a data set in, metrics out.

The Python API of ``florence2 evaluate``: reads and checks the data, loads the model, submits all questions and measures the answers.
Prints nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from florence2.data_sources import read_source
from florence2.datasets.reader import check_limit
from florence2.datasets.record import DataSet, Record
from florence2.engine.engine import Engine, load
from florence2.errors import DatasetError, InvalidOption
from florence2.evaluation.answers import answer_all, check
from florence2.evaluation.metrics import Answered, Metrics, check_installed, compute_metrics, metrics_as_dict
from florence2.extras import requires
from florence2.outputs import check_folder, write_new
from florence2.request_options import check_generation
from florence2.tasks.naming import with_tag
from florence2.tasks.prompt import shortened
from florence2.tasks.table import TASKS
from florence2.weights.aliases import DEMO
from florence2.weights.source import adapter_names

FILE_NAME = "evaluation.json"
READING, ANSWERING = "images looked at", "answers"

OnProgress = Callable[[str, int, int | None], None]
OnMessage = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """How well a model answered the questions of a data set.

    Attributes:
        model: the model's name, or the folder of the engine that was given.
        adapters: the adapters that were merged.
        data: the name of the data set; ``records`` where records were given.
        precision: of the arithmetic, such as ``fp32``.
        num_beams: of the search; 1 is greedy.
        metrics: metrics by task and name, such as ``metrics["<OD>"]["ap"].value``.
        answers: each record with the result that the model gave, in the order of the data set.
        path: the file that holds the metrics; None where no ``output`` was given.
    """

    model: str
    adapters: tuple[str, ...]
    data: str
    precision: str
    num_beams: int
    metrics: Metrics
    answers: tuple[Answered, ...]
    path: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Settings and metrics as ``florence2 evaluate --json`` prints them, values rounded to four decimals."""
        settings = {
            "model": self.model,
            "adapters": list(self.adapters),
            "data": self.data,
            "precision": self.precision,
            "beams": self.num_beams,
        }
        return {"settings": settings, "figures": metrics_as_dict(self.metrics)}


def evaluate(
    data: str | Path | Sequence[Record],
    *,
    model: str | Path | Engine | None = None,
    adapters: Sequence[str | Path] = (),
    images: str | Path | None = None,
    prompt: str = "<OD>",
    allow_unknown_tag: bool = False,
    tags: Sequence[str] | None = None,
    skip_bad: bool = False,
    limit: int | None = None,
    num_beams: int | None = None,
    max_new_tokens: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    output: str | Path | None = None,
    on_progress: OnProgress = lambda what, done, total: None,
    on_message: OnMessage = lambda message: None,
) -> Evaluation:
    """Evaluate a model on a data set, as ``florence2 evaluate`` does.

    Args:
        data: a ``.jsonl`` file, a COCO ``.json`` file, the ``data.yaml`` of a YOLO data set, a folder with train, valid and test of any of
            these, ``synthetic:COUNT?seed=S``, or records.
        model: an alias, alias@revision, a hub id, a folder, or an engine, which stays open; None as in ``florence2.load``.
        adapters: adapters to merge, in this order; each a folder or a hub id.
        images: the folder that the images' names are relative to; None is the data set's own.
        prompt: the question about the images of data sets with boxes: ``<OD>``, or ``<OPEN_VOCABULARY_DETECTION>`` for all its classes.
        allow_unknown_tag: take prompts that begin with a tag which is none of the fifteen as free text.
        tags: the tasks whose questions are answered, such as ``["<OD>"]``; None is all.
        skip_bad: leave invalid records out.
        limit: at most so many images, at least 1; None is all.
        num_beams: of the search, 1 is greedy; None is the checkpoint's.
        max_new_tokens: the longest answer in tokens; None is the checkpoint's.
        device: "auto" (cuda, else mps, else cpu) or a device's name.
        precision: "auto", "fp32", "bf16", "fp16" or "int8"; see ``florence2.load``.
        output: a folder in which ``evaluation.json`` is written; made if need be. None writes nothing.
        on_progress: called with what is counted, how many there were so far, and how many there will be (None where that is not known);
            at the end of each count the last two are equal.
        on_message: called with each line about the data, such as what was skipped.

    Raises:
        InvalidOption: an option that can't be, or options that do not go together.
        DatasetError: no such data set, invalid records that may not be skipped, or nothing to evaluate on.
        ModelNotFound: no such model.
        MissingExtra: the libraries that compute the metrics are not installed.
    """
    with requires("evaluate", "florence2.evaluation.evaluate"):
        check_installed()
    search = {"num_beams": num_beams, "max_new_tokens": max_new_tokens}
    adapters = adapter_names(adapters)
    tags = tags if tags is None else (tags,) if isinstance(tags, str) else tuple(tags)
    _check_options(search, limit, tags, model, adapters, device, precision)
    folder = None if output is None else _output_folder(Path(output))
    name = str(data) if isinstance(data, (str, Path)) else "records"
    found = _read(
        data,
        on_progress,
        images=None if images is None else Path(images),
        prompt=with_tag(prompt),
        own_tags=allow_unknown_tag,
        limit=limit,
    )
    records = _of_tasks(found.sound(skip_bad=skip_bad, report=on_message), tags, name)
    with ExitStack() as stack:
        if isinstance(model, Engine):
            engine = model
        else:
            engine = stack.enter_context(load(model, device=device, precision=precision, adapters=adapters))
        records = check(engine, records, name).sound(skip_bad=skip_bad, report=on_message)
        answers = tuple(answer_all(engine, records, progress=lambda done: on_progress(ANSWERING, done, len(records)), **search))
    evaluation = Evaluation(
        model=str(engine.checkpoint.folder if model is engine else model or DEMO),
        adapters=tuple(map(str, adapters)),
        data=name,
        precision=engine.precision,
        num_beams=num_beams or engine.checkpoint.generation.num_beams,
        metrics=compute_metrics(answers),
        answers=answers,
    )
    return evaluation if folder is None else _written(evaluation, folder)


def _check_options(
    search: dict[str, Any],
    limit: int | None,
    tags: Sequence[str] | None,
    model: object,
    adapters: Sequence[str | Path],
    device: str,
    precision: str,
) -> None:
    """Refuse options that can't be or do not go together, before anything is read; errors as in ``evaluate``."""
    check_generation(**search)
    check_limit(limit)
    unknown = sorted(set(tags or ()) - set(TASKS))
    if unknown or (tags is not None and not tags):
        raise InvalidOption(f"tags must be out of {', '.join(TASKS)}; got {', '.join(unknown) or 'none'}", field="tags")
    if isinstance(model, Engine) and (adapters or device != "auto" or precision != "auto"):
        raise InvalidOption("the model is an engine, which has its adapters, device and precision: leave them out", field="model")


def _output_folder(folder: Path) -> Path:
    """A folder that can be made and written to.

    Raises:
        InvalidOption: what is in the way, or the name is that of a file.
    """
    if folder.suffix == ".json" and not folder.exists():
        raise InvalidOption(f"output takes the folder in which {FILE_NAME} is made, got the file {folder}", field="output")
    check_folder(folder, "output")
    return folder


def _read(data: str | Path | Sequence[Record], on_progress: OnProgress, *, images: Path | None, **reading: Any) -> DataSet:
    """The data set; records that were given are valid already."""
    if images is not None and not images.is_dir():
        raise InvalidOption(f"images must be a folder, got {str(images)!r}", field="images")
    if not isinstance(data, (str, Path)):
        records = list(data)
        if wrong := next((record for record in records if not isinstance(record, Record)), None):
            raise InvalidOption(f"data is the name of a data set or a list of records, got a list with {shortened(wrong)}", field="data")
        for field, value in (("limit", reading["limit"]), ("images", images)):
            if value is not None:
                raise InvalidOption(f"{field} goes with the name of a data set; of records give those that are to be answered", field=field)
        return DataSet("records", records)
    num_images = 0

    def count(done: int) -> None:
        nonlocal num_images
        num_images = done
        on_progress(READING, done, None)

    found = read_source(str(data), images=images, for_training=False, progress=count, **reading)
    on_progress(READING, num_images, num_images)
    return found


def _of_tasks(records: list[Record], tags: Sequence[str] | None, name: str) -> list[Record]:
    """The records of some tasks.

    Raises:
        DatasetError: there are none.
    """
    chosen = records if tags is None else [record for record in records if record.tag in tags]
    if not chosen:
        raise DatasetError(f"{name} holds no records of {', '.join(tags or ())}")
    return chosen


def _written(evaluation: Evaluation, folder: Path) -> Evaluation:
    """The evaluation, written to a new file of a folder."""
    stem, ending = os.path.splitext(FILE_NAME)
    return replace(evaluation, path=write_new(folder, stem, ending, json.dumps(evaluation.to_dict(), indent=1) + "\n"))
