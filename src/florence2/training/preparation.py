"""The records of a fine-tuning run: read, checked, and divided into those that are trained on and those that are held out.

In: names of data sets. Out: records that the model has room for. Knows nothing of steps.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from florence2.data_sources import check_source, read_source
from florence2.datasets.folders import part_of
from florence2.datasets.part_names import TEST, VALID
from florence2.datasets.record import DataSet, Record, partition
from florence2.datasets.round_trip import check_survival
from florence2.datasets.splits import check_share, split
from florence2.engine.engine import load
from florence2.errors import InvalidOption
from florence2.evaluation.answers import answered_by_itself, check
from florence2.tasks.naming import with_tag
from florence2.tasks.tokenizer import Tokenizer
from florence2.training.options import FineTuneData
from florence2.weights.checkpoint import Checkpoint


class Progress(Protocol):
    """How many of something are done."""

    def update(self, num_done: int, /) -> None:
        """Show that so many are done."""


class NoProgress:
    """Progress that is not shown."""

    def update(self, num_done: int, /) -> None:
        """Show nothing."""


ShowProgress = Callable[[str, int | None], AbstractContextManager[Progress]]
"""Shows the progress of what is counted, of how many there are; None where that is not known."""


@dataclass(frozen=True)
class Reports:
    """How a run reports what it does before its first step.

    Attributes:
        message: called with each line about the data.
        progress: shows how far the reading of data and the answering of prompts have come.
    """

    message: Callable[[str], None] = lambda _: None
    progress: ShowProgress = lambda *_: nullcontext(NoProgress())


@dataclass(frozen=True)
class Start:
    """The model that a run begins with.

    Attributes:
        name: an alias, alias@revision, hub id or folder.
        adapters: adapters to merge, in this order; each a folder or a hub id.
        device: "auto" or a device's name.
    """

    name: str
    adapters: tuple[str | Path, ...] = ()
    device: str = "auto"


def check_data(data: FineTuneData) -> None:
    """Refuse data sets and a folder of images that do not exist, before a model is downloaded.

    Raises:
        DatasetError: there is no such data set.
        InvalidOption: there is no such folder, or the share is none.
    """
    if data.images is not None and not data.images.is_dir():
        raise InvalidOption(f"images must be a folder, got {str(data.images)!r}", field="images")
    for name in (*data.train, *data.rehearse):
        check_source(name)
    if data.validation is not None:
        check_source(data.validation, for_training=False)
    check_share(data.validation_share)


def read_records(data: FineTuneData, start: Start, seed: int, reports: Reports) -> tuple[list[Record], list[Record]]:
    """The records to train on, and those that are held out.

    Args:
        data: what to read.
        start: answers what is to be rehearsed and has no answer.
        seed: of the choice of records that are held out.
        reports: of what is read.

    Raises:
        DatasetError: there are invalid records, and they may not be skipped.
        InvalidOption: there are pictures that are both trained on and held out.
    """
    trained = [_read(name, data, reports) for name in data.train]
    rehearsed = [_read(name, data, reports, answered=False) for name in data.rehearse]
    apart = [_read(name, data, reports, for_training=False, parts=(VALID, TEST)) for name in _validation_names(data, reports)]
    _report_all([*trained, *rehearsed, *apart], data.skip_bad, reports)
    records = [record for found in trained for record in found.records]
    for found in rehearsed:
        records += [replace(record, is_rehearsed=True) for record in _answered(found, data.skip_bad, start, reports)]
    if not apart:
        return split(records, data.validation_share, seed)
    held_out = [record for found in apart for record in found.records]
    _refuse_shared_pictures(records, held_out)
    return records, held_out


def with_room(records: Sequence[Record], checkpoint: Checkpoint, tokenizer: Tokenizer, name: str) -> DataSet:
    """The records that a model has room for and whose answers its tokens can say, and what is wrong with the others.

    Answers of rehearsed records are written in the model's own tokens already.

    Args:
        records: to choose from.
        checkpoint: the model's.
        tokenizer: the model's.
        name: what the records are called in messages.
    """
    text, image = checkpoint.config.text, checkpoint.image
    room = text.max_position_embeddings
    num_image_tokens = checkpoint.config.vision.num_image_tokens(image.height, image.width)

    def fault(record: Record) -> str | None:
        prompt, answer = (len(tokenizer.encode(words)) for words in (record.question.sentence, record.answers[0]))
        if prompt + num_image_tokens > room:
            return f"the prompt has {prompt} tokens; there is room for {room - num_image_tokens}"
        if answer > room:
            return f"the answer has {answer} tokens; there is room for {room}"
        return None if record.is_rehearsed else check_survival(record.answers[0], record.question, tokenizer, checkpoint.banned_phrases)

    return partition(records, fault, name)


def _read(
    name: str,
    data: FineTuneData,
    reports: Reports,
    *,
    parts: Sequence[str] | None = None,
    for_training: bool = True,
    answered: bool = True,
) -> DataSet:
    """A data set, whatever is wrong with it."""
    with reports.progress("images looked at", None) as progress:
        return read_source(
            name,
            images=data.images,
            prompt=with_tag(data.prompt),
            own_tags=data.allow_unknown_tag,
            limit=data.limit,
            progress=progress.update,
            parts=parts,
            for_training=for_training,
            answered=answered,
        )


def _validation_names(data: FineTuneData, reports: Reports) -> list[str]:
    """The data sets that the validation loss is measured on: the one that was named, else the parts for it of folders that have one."""
    if data.validation is not None:
        return [data.validation]
    found = {name: part for name in data.train if (part := part_of(name, VALID)) is not None}
    if found:
        reports.message(f"the validation loss is measured on {', '.join(map(str, found.values()))}")
    return list(found)


def _report_all(found: Sequence[DataSet], skip_bad: bool, reports: Reports) -> None:
    """Report what is wrong with any of some data sets at once; each must hold something valid."""
    whole = DataSet(", ".join(one.name for one in found))
    for one in found:
        whole.records += one.records
        whole.problems += one.problems
        whole.notices += one.notices
    whole.sound(skip_bad=skip_bad, report=reports.message)
    for one in found:
        one.sound(skip_bad=True)


def _answered(found: DataSet, skip_bad: bool, start: Start, reports: Reports) -> list[Record]:
    """The records; those that have no answer are answered by the model as it is."""
    if all(record.answers for record in found.records):
        return found.records
    with load(start.name, device=start.device, adapters=start.adapters) as engine:
        records = check(engine, found.records, found.name).sound(skip_bad=skip_bad, report=reports.message)
        with reports.progress("answers", len(records)) as progress:
            return list(answered_by_itself(engine, records, progress=progress.update))


def _refuse_shared_pictures(trained: Sequence[Record], held_out: Sequence[Record]) -> None:
    """Refuse pictures that are both trained on and held out, under whatever name."""
    names = ({os.path.realpath(str(one.picture)): str(one.picture) for one in records} for records in (held_out, trained))
    first, second = names
    shared = [first[path] for path in first.keys() & second.keys()]
    if shared:
        raise InvalidOption(
            f"{len(shared)} images are in what is learnt and in what is held out, such as {min(shared)}; "
            "what is learnt can't tell when to stop",
            field="validation",
        )
