"""Answers of a model to the questions of records.

In: an engine and records. Out: each record with its result, in order. Several pictures are in flight at once, and all questions about one
picture are submitted together, so that it is encoded once. Knows the public interface of the engine; nothing of models or weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import groupby
from typing import Any

from PIL import Image

from florence2.datasets.record import DataSet, Record, partition
from florence2.datasets.round_trip import check_survival
from florence2.engine.engine import Engine
from florence2.errors import InvalidRequest
from florence2.evaluation.metrics import Answered
from florence2.in_flight import in_flight, read_ahead
from florence2.results import Result

_Group = tuple[list[Record], Image.Image]


def check(engine: Engine, records: Sequence[Record], name: str) -> DataSet:
    """The records that this model can be asked, and what is wrong with the others.

    A record is invalid where its prompt is too long for the model, or where the model's tokens can't write its answer.

    Args:
        engine: the model.
        records: to choose from.
        name: what the records are called in messages.
    """

    def fault(record: Record) -> str | None:
        try:
            engine.prepare(record.question, allow_unknown_tag=True)
        except InvalidRequest as error:
            return error.message
        faults = (check_survival(answer, record.question, engine.tokenizer, engine.checkpoint.banned_phrases) for answer in record.answers)
        return next((fault for fault in faults if fault is not None), None)

    return partition(records, fault, name)


def answer_all(
    engine: Engine, records: Sequence[Record], *, progress: Callable[[int], None] | None = None, **generation: Any
) -> Iterator[Answered]:
    """The records with the model's answers, in their order.

    Args:
        engine: answers by ``submit_many``.
        records: those of one picture next to each other.
        progress: called with the number of records answered so far.
        generation: options of ``submit``, such as ``num_beams``.

    Raises:
        InvalidRequest: an option that can't be, or a record that ``check`` refuses.
    """
    options = {"scores": True, "allow_unknown_tag": True, "keep_image": False, **generation}

    def read(group: list[Record]) -> _Group:
        return group, group[0].picture.open()

    def submit(item: _Group) -> list[Future[Result]]:
        group, picture = item
        return engine.submit_many(picture, [record.question for record in group], **options)

    groups = [list(group) for _, group in groupby(records, key=lambda record: record.picture)]
    num_answered = 0
    for (group, _), futures in in_flight(read_ahead(groups, read), submit):
        for record, future in zip(group, futures, strict=True):
            yield Answered(record, future.result())
            num_answered += 1
            if progress is not None:
                progress(num_answered)


def answered_by_itself(engine: Engine, records: Sequence[Record], *, progress: Callable[[int], None] | None = None) -> Iterator[Record]:
    """The records, those without an answer with the model's own; arguments and errors as in ``answer_all``."""
    own = answer_all(engine, [record for record in records if not record.answers], progress=progress, num_beams=1)
    for record in records:
        yield record if record.answers else replace(record, answers=(next(own).result.text,))
