"""Prompts and answers for ``florence2 train``, written from what is in the data set.

In: the answers about one picture after all filters. Out: prompts with answers as a model writes them, so that what is learnt is what the
other formats hold. An answer that would not be read back as it is written, that is empty where there should be words, or that a limit
cut short is no example, and is counted. Knows no files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from florence2.datasets.boxes import write_boxes
from florence2.datasets.labelled import LabelledObject
from florence2.datasets.round_trip import check_answer
from florence2.errors import DatasetError
from florence2.labelling.answers import READING_TAG, Answered, Said, Size, parsed
from florence2.labelling.class_names import plain
from florence2.labelling.questions import without_tokens
from florence2.results import Outline
from florence2.tasks.coordinates import quantize
from florence2.tasks.table import TASKS
from florence2.tasks.vocabulary import location_token

Example = tuple[str, str]

DETECTION = "<OD>"
CUT = "cut short by max_new_tokens"
EMPTY = "empty"
UNREADABLE = "that would not be read back"


def examples_of(
    answers: Sequence[Answered], objects: Sequence[LabelledObject], size: Size, *, is_by_class: bool, lost: Counter[str]
) -> tuple[Example, ...]:
    """The examples of a picture: one for each prompt; for classes that were asked one by one a single detection of all objects.

    Args:
        answers: those of ``Filtered``.
        objects: those of ``Filtered``.
        size: width and height of the picture.
        is_by_class: whether the objects were asked for class by class.
        lost: gets the number of answers that are no examples, by the reason.
    """
    texts = [answer for answer in answers if answer.text is not None or not is_by_class]
    found = [example for answer in texts if (example := _example(answer, size, lost))]
    if is_by_class and not all(answer.is_whole for answer in answers if answer.text is None):
        lost[CUT] += 1
    elif is_by_class:
        things = sorted(objects, key=lambda thing: thing.box[:2])  # as florence2 train writes a COCO file's
        found.append((DETECTION, write_boxes([(thing.label, thing.box) for thing in things], size)))
    return tuple(found)


def _example(answer: Answered, size: Size, lost: Counter[str]) -> Example | None:
    fault = None if answer.is_whole else CUT
    written = ""
    if fault is None and answer.text is not None:
        written = without_tokens(answer.text).strip()
        fault = None if written or answer.tag == "<OCR>" else EMPTY
    elif fault is None:
        written = _written(answer.found, answer.tag, size)
        if answer.tag == READING_TAG and "<" in "".join(said.label for said in answer.found) and not _is_read_back(answer.prompt, written):
            written = _written([Said(plain(said.label), said.thing) for said in answer.found], answer.tag, size)
    # Plain labels are read back whatever they are.
    if fault is None and answer.text is not None and not _is_read_back(answer.prompt, written):
        fault = UNREADABLE
    if fault is not None:
        lost[fault] += 1
        return None
    return answer.prompt, written


def _is_read_back(prompt: str, written: str) -> bool:
    try:
        check_answer(written, parsed(prompt))
    except DatasetError:
        return False
    return True


def _written(found: Sequence[Said], tag: str, size: Size) -> str:
    """Objects as the task's answers have them."""
    grammar = TASKS[tag].grammar
    if grammar == "quads":
        return "".join(said.label + _locations(said.thing.polygons[0], size) for said in found)
    if grammar == "bare_boxes":
        return write_boxes([("", said.thing.box) for said in found], size)
    if grammar == "polygons":
        if len(found) == 1:
            return _rings(found[0].thing, size)
        return "".join(f"<poly>{_rings(said.thing, size)}</poly>" for said in found)
    if not any(said.thing.polygons for said in found):
        return write_boxes([(said.label, said.thing.box) for said in found], size)
    return "".join(f"{said.label}<poly>{_rings(said.thing, size)}</poly>" for said in found)


def _rings(thing: LabelledObject, size: Size) -> str:
    x1, y1, x2, y2 = thing.box
    outlines = thing.polygons or ((x1, y1, x2, y1, x2, y2, x1, y2),)
    return "<sep>".join(_locations(outline, size) for outline in outlines)


def _locations(outline: Outline, size: Size) -> str:
    return "".join(map(location_token, quantize(outline, size)))
