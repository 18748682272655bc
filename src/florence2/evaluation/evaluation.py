"""How well a model answers what records ask.

In: an engine and records. Out: figures by task, as `measures` has them. Several pictures are under way at once, and all questions about
one picture are asked together, so that it is encoded once. Knows the public face of the engine; nothing of models or weights.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import groupby
from typing import Any

from florence2.datasets.record import DataSet, Record, sift
from florence2.datasets.round_trip import check_survival
from florence2.engine.engine import Engine
from florence2.errors import InvalidRequest
from florence2.evaluation.metrics import Answered, Figures, measure
from florence2.results import Result

PICTURES_AHEAD = 8


def check(engine: Engine, records: Sequence[Record], name: str) -> DataSet:
    """The records that this model can be asked, and what is wrong with the others.

    That is a prompt without room, or an answer that its tokens can't say.
    """

    def fault(record: Record) -> str | None:
        try:
            engine.check_length(record.prompt, allow_unknown_tag=True)
        except InvalidRequest as error:
            return error.message
        told = (check_survival(answer, record.question, engine.tokenizer, engine.checkpoint.banned_phrases) for answer in record.answers)
        return next((fault for fault in told if fault is not None), None)

    return sift(records, fault, name)


def evaluate(engine: Engine, records: Sequence[Record], *, progress: Callable[[int], None] | None = None, **generation: Any) -> Figures:
    """Ask everything that the records ask, and measure the answers.

    Args:
        engine: answers by ``submit_many``.
        records: those of one picture next to each other.
        progress: called with the number of records answered so far.
        generation: options of ``submit``, such as ``num_beams``.

    Raises:
        InvalidRequest: an option that can't be, or a record that `check` refuses.
    """
    return measure(answer_all(engine, records, progress=progress, **generation))


def answered_by_itself(engine: Engine, records: Sequence[Record], *, progress: Callable[[int], None] | None = None) -> Iterator[Record]:
    """The records, those without an answer with the model's own; arguments and errors as in `evaluate`."""
    own = answer_all(engine, [record for record in records if not record.answers], progress=progress, num_beams=1)
    for record in records:
        yield record if record.answers else replace(record, answers=(next(own).result.text,))


def answer_all(
    engine: Engine, records: Sequence[Record], *, progress: Callable[[int], None] | None = None, **generation: Any
) -> Iterator[Answered]:
    """The records with the model's answers, in their order; arguments and errors as in `evaluate`."""
    under_way: deque[tuple[list[Record], list[Future[Result]]]] = deque()
    options = {"scores": True, "allow_unknown_tag": True, **generation}
    num_answered = 0

    def settled() -> Iterator[Answered]:
        nonlocal num_answered
        for record, future in zip(*under_way.popleft(), strict=True):
            yield Answered(record, future.result())
            num_answered += 1
            if progress is not None:
                progress(num_answered)

    for picture, group in groupby(records, key=lambda record: record.picture):
        asked = list(group)
        futures = engine.submit_many(picture.open(), [record.prompt for record in asked], keep_image=False, **options)
        under_way.append((asked, futures))
        if len(under_way) == PICTURES_AHEAD:
            yield from settled()
    while under_way:
        yield from settled()
