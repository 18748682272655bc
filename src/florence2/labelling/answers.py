"""From a line of the journal to what its answers found: objects with a class, inside the picture, with an area.

In: a record of the journal. Out: one ``Answered`` for each of its prompts. What no data set can hold (an object without a name, a box
without an area) is left out here and counted. Knows no filter that a user sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from florence2.datasets.labelled import LabelledObject
from florence2.errors import DatasetError, InvalidRequest
from florence2.labelling.class_names import phrase_class, plain, writable
from florence2.labelling.questions import CLASS_TAG, PHRASES_TAG
from florence2.outlines import Box, Outline, box_around, ordered, outline_area
from florence2.results import FoundObject, Result
from florence2.tasks.prompt import Prompt, parse_prompt
from florence2.tasks.table import TASKS

Size = tuple[int, int]

READING_TAG = "<OCR_WITH_REGION>"
TEXT_CLASS, REGION_CLASS, OBJECT_CLASS = "text", "region", "object"
NAMELESS = "without a name"
WITHOUT_AREA = "without an area inside the picture"
_NO_CLASS = {READING_TAG: TEXT_CLASS, "<DENSE_REGION_CAPTION>": REGION_CLASS, "<REGION_PROPOSAL>": OBJECT_CLASS}
_SAID = (READING_TAG, "<DENSE_REGION_CAPTION>")
NAMING_TAGS = frozenset(tag for tag, task in TASKS.items() if task.kind != "text") - frozenset(_NO_CLASS)
"""The tasks whose answers name classes; those of the others stand for texts and regions."""


@dataclass(frozen=True)
class Said:
    """An object, and the label that the answer has for it, which need not be its class.

    Attributes:
        label: as an answer of the same task would say it.
        thing: the object.
    """

    label: str
    thing: LabelledObject


@dataclass(frozen=True)
class Answered:
    """One prompt and its answer.

    Attributes:
        prompt: as it was asked.
        tag: its task.
        found: what was found, in the order of generation.
        text: an answer that is a text; None for objects.
        is_whole: the model ended the answer, and no limit.
    """

    prompt: str
    tag: str
    found: tuple[Said, ...] = ()
    text: str | None = None
    is_whole: bool = True


def read_answers(record: Mapping[str, Any], is_by_class: bool, lost: Counter[str]) -> list[Answered]:
    """The answers of a record.

    Args:
        record: a line of the journal without an error.
        is_by_class: whether each question for a class names what it finds, whatever the answer calls it.
        lost: gets the number of objects that were left out, by the reason.

    Raises:
        DatasetError: it is no record of a journal.
    """
    try:
        width, height = record["size"]
        return [_answered(answer, (width, height), is_by_class, lost) for answer in record["answers"]]
    except (KeyError, TypeError, ValueError, InvalidRequest) as error:
        raise unreadable(record, str(error)) from error


def unreadable(record: Mapping[str, Any], why: str) -> DatasetError:
    """The error on a record that no run has written so."""
    name = record.get("id")
    out = "take its line out of the journal, or the part that holds it out of the parts"
    return DatasetError(f"the record of {name!r} can't be read: {why}; {out}, and the same command asks again")


@lru_cache(maxsize=1024)
def parsed(prompt: str) -> Prompt:
    """A prompt of a journal, where many pictures have the same ones."""
    return parse_prompt(prompt, allow_unknown_tag=True)


def _answered(answer: Mapping[str, Any], size: Size, is_by_class: bool, lost: Counter[str]) -> Answered:
    question = parsed(answer["prompt"])
    result = Result.from_dict(answer["response"], size)
    tag = question.tag or ""
    answered = Answered(answer["prompt"], tag, is_whole=answer.get("finish_reason", "stop") == "stop")
    if result.kind == "text":
        return replace(answered, text=writable(result.text).strip())
    asked = plain(question.argument) if TASKS[tag].grammar == "polygons" or (is_by_class and tag == CLASS_TAG) else None
    return replace(answered, found=tuple(_found(result, tag, asked, lost)))


def _found(result: Result, tag: str, asked: str | None, lost: Counter[str]) -> Iterator[Said]:
    for found in result.objects:
        label, text = _named(tag, found.label) if asked is None else (asked, "")
        shape = _shape(found, result.image_size)
        if not label or (tag in _SAID and not plain(text)):
            lost[NAMELESS] += 1
        elif shape is None:
            lost[WITHOUT_AREA] += 1
        else:
            said = text if tag == READING_TAG else plain(asked or found.label)
            yield Said(said, LabelledObject(label, *shape, found.score, text, tag))


def _named(tag: str, label: str) -> tuple[str, str]:
    """The class of what an answer calls ``label``, and the text that it is instead where the task names no classes."""
    if tag in _NO_CLASS:
        return _NO_CLASS[tag], " ".join(writable(label).split())
    return (phrase_class(label) if tag == PHRASES_TAG else plain(label)), ""


def _shape(found: FoundObject, size: Size) -> tuple[Box, tuple[Outline, ...]] | None:
    """Box and outlines within the picture; None where nothing of the object has an area there."""
    outlines = (found.quad,) if found.quad is not None else found.polygons
    if not outlines:
        x1, y1, x2, y2 = _clipped(found.box, size)
        return (ordered((x1, y1, x2, y2)), ()) if x1 != x2 and y1 != y2 else None
    kept = tuple(outline for each in outlines if outline_area(outline := _clipped(each, size)) > 0)
    return (box_around(kept), kept) if kept else None


def _clipped(outline: Outline, size: Size) -> Outline:
    """The x and y of an outline, each moved to the edge where it lies outside; a last x without y is left out."""
    return tuple(min(max(float(value), 0.0), float(size[index % 2])) for index, value in enumerate(outline[: len(outline) // 2 * 2]))
