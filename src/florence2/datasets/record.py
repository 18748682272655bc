"""One question about one picture and its answer: what data sets are made of, for training and for evaluation.

In: a source (JSONL, COCO, scenes) hands over parts. Out: a ``Record`` that is known to be valid: its picture opens, its prompt is
one that the model takes, its answer one that the task can have. An invalid record is a ``Problem`` with its source. Knows
nothing of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from florence2.datasets.pictures import Picture
from florence2.datasets.round_trip import check_answer
from florence2.errors import DatasetError
from florence2.results import Result
from florence2.tasks.answer import read_answer
from florence2.tasks.prompt import Prompt, build_prompt, shortened

_PROBLEMS_SHOWN = 50


@dataclass(frozen=True)
class Locations:
    """Where the things of an answer are, in pixels of the picture, unrounded.

    Attributes:
        labels: one a thing, empty where the task gives none.
        boxes: x1, y1, x2, y2 each.
        quads: four corners each, as x, y, x, y, …
        polygons: the outlines of each thing, as x, y, x, y, …
    """

    labels: tuple[str, ...] = ()
    boxes: tuple[tuple[float, ...], ...] = ()
    quads: tuple[tuple[float, ...], ...] = ()
    polygons: tuple[tuple[tuple[float, ...], ...], ...] = ()


def locations(result: Result) -> Locations:
    """The locations of a result: the centre of each of its bins."""
    if result.kind == "text":
        return Locations()
    found = result.to_dict(scores=False, coordinates="float")[result.task]
    return Locations(
        labels=tuple(result.labels),
        boxes=tuple(tuple(box) for box in found.get("bboxes", ())),
        quads=tuple(tuple(quad) for quad in found.get("quad_boxes", ())),
        polygons=tuple(tuple(tuple(outline) for outline in outlines) for outlines in found.get("polygons", ())),
    )


@dataclass(frozen=True)
class Record:
    """One question and its answer.

    Attributes:
        where: the file and line of its source, for messages: "train.jsonl:17".
        picture: opened when it is needed.
        prompt: as a user writes it: a tag and what belongs to it, or free text.
        answers: what the model shall write, without ``<s>`` and ``</s>``. The first is learnt; more than one are references for a caption;
            none is a question that is still to be answered.
        size: the picture's width and height in pixels.
        truth: where the answer's things are. Where a source knows that more exactly than in thousandths, it says so here.
        ignored: labels and boxes that cover many things of one kind, COCO's crowds: what is found there is neither right nor wrong.
        is_rehearsed: training shall keep how the model answers it, instead of teaching it the answer.
    """

    where: str
    picture: Picture
    prompt: str
    answers: tuple[str, ...]
    size: tuple[int, int]
    truth: Locations
    ignored: tuple[tuple[str, tuple[float, ...]], ...] = ()
    is_rehearsed: bool = False

    @cached_property
    def question(self) -> Prompt:
        """The parsed prompt."""
        return build_prompt(self.prompt, image_size=self.size, allow_unknown_tag=True)

    @property
    def tag(self) -> str | None:
        """The task's tag; None for a free prompt."""
        return self.question.tag


@dataclass(frozen=True)
class Problem:
    """Something in a source that can't be used: where it stands, and what is wrong with it."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass
class DataSet:
    """What a source holds: the valid records, and what is wrong with the others.

    Attributes:
        name: what it is called in messages.
        records: in the order of the source.
        problems: likewise.
        notices: what was taken although it is not as it should be, with how often.
    """

    name: str
    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notices: Counter[str] = field(default_factory=Counter)

    def sound(self, *, skip_bad: bool = False, report: Callable[[str], None] = lambda line: None) -> list[Record]:
        """The valid records.

        Args:
            skip_bad: go on without the invalid ones.
            report: called with each line on what is skipped, and on what was taken although it is not as it should be.

        Raises:
            DatasetError: there are problems and they may not be skipped, or nothing is left. The message lists them line by line.
        """
        if self.problems and not skip_bad:
            shown = [str(problem) for problem in self.problems[:_PROBLEMS_SHOWN]]
            if len(self.problems) > _PROBLEMS_SHOWN:
                shown.append(f"… and {len(self.problems) - _PROBLEMS_SHOWN} more")
            count = f"{len(self.problems)} problem" + ("" if len(self.problems) == 1 else "s")
            raise DatasetError("\n".join([*shown, f"{self.name}: {count}, {len(self.records)} valid; skip_bad=True goes on without them"]))
        if not self.records:
            what = f": all {len(self.problems)} are invalid, the first is {self.problems[0]}" if self.problems else ""
            raise DatasetError(f"{self.name} holds no records{what}")
        for problem in self.problems:
            report(str(problem))
        if self.problems:
            report(f"{self.name}: skipped {len(self.problems)}, {len(self.records)} valid")
        for what, count in self.notices.items():
            report(f"{self.name}: {count} {what}")
        return self.records


def partition(records: Iterable[Record], fault: Callable[[Record], str | None], name: str) -> DataSet:
    """Valid records, and a problem for each of the others.

    Args:
        records: to choose from.
        fault: what is wrong with a record; None where it is valid.
        name: what the records are called in messages.
    """
    data = DataSet(name)
    for record in records:
        message = fault(record)
        if message is None:
            data.records.append(record)
        else:
            data.problems.append(Problem(record.where, message))
    return data


def make_record(where: str, picture: Picture, size: tuple[int, int], prompt: str, answers: Sequence[str], *, own_tags: bool) -> Record:
    """A record, checked.

    Args:
        where: the file and line of its source.
        picture: one that opens.
        size: the picture's width and height in pixels.
        prompt: as a user writes it.
        answers: the right ones; empty where the model is to answer itself.
        own_tags: let prompts pass that begin like a tag which is none of the fifteen.

    Raises:
        InvalidRequest: the prompt is none, or an answer is none that its task can have.
    """
    question = build_prompt(prompt, image_size=size, allow_unknown_tag=own_tags)
    for answer in answers:
        check_answer(answer, question)
    truth = locations(read_answer(question, answers[0], size)) if answers else Locations()
    return Record(where, picture, prompt, tuple(answers), size, truth)


def with_boxes(
    record: Record,
    boxes: Sequence[Sequence[float]],
    ignored: Sequence[tuple[str, Sequence[float]]] = (),
    labels: Sequence[str] | None = None,
) -> Record:
    """The record with the exact boxes of its objects in place of those that the answer's thousandths give.

    Args:
        record: what the boxes belong to.
        boxes: one for each thing of its answer.
        ignored: the record's, see there.
        labels: what the things are called; None leaves them unchecked.

    Raises:
        DatasetError: the answer does not read as these things, because a label is empty or holds something like a location.
    """
    read = record.truth.labels
    if len(read) != len(boxes) or (labels is not None and tuple(labels) != read):
        wrong = next((label for label in labels or () if label not in read), record.answers[0])
        raise DatasetError(f"{len(boxes)} boxes read as {len(read)}, or under other names: look at the labels, such as {shortened(wrong)}")
    truth = replace(record.truth, boxes=tuple(tuple(box) for box in boxes))
    return replace(record, truth=truth, ignored=tuple((label, tuple(box)) for label, box in ignored))
