"""Pictures with labelled boxes as records: one question about each picture, answered by all its boxes from left to right.

In: a picture, its boxes in pixels, and the names of a data set's classes. Out: the question and the record. What COCO, YOLO and Pascal VOC
have in common; knows none of their files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from florence2.datasets.boxes import Box, write_boxes
from florence2.datasets.pictures import Picture, Size
from florence2.datasets.record import Record, make_record, with_boxes
from florence2.errors import DatasetError
from florence2.tasks.prompt import build_prompt, shortened

DETECTION, OPEN_VOCABULARY = "<OD>", "<OPEN_VOCABULARY_DETECTION>"
Thing = tuple[str, Box]
"""The name of a class, and a box in pixels."""


def question_of(prompt: str, classes: Iterable[str], what: str) -> str:
    """The question about each picture.

    Args:
        prompt: ``<OD>``, or ``<OPEN_VOCABULARY_DETECTION>`` for all classes by name.
        classes: their names; one that stands there twice is asked for once.
        what: what kind of data set it is, for the message.

    Raises:
        DatasetError: another prompt.
    """
    if prompt not in (DETECTION, OPEN_VOCABULARY):
        raise DatasetError(f"{what} answers {DETECTION} or {OPEN_VOCABULARY}, which asks for all its classes; got {shortened(prompt)}")
    question = prompt if prompt == DETECTION else prompt + "<and>".join(dict.fromkeys(classes))
    build_prompt(question)
    return question


def detection_record(
    where: str, picture: Picture, size: Size, question: str, things: Iterable[Thing], ignored: Sequence[Thing] = ()
) -> Record:
    """The record of a picture.

    Args:
        where: its source.
        picture: one that opens.
        size: the picture's width and height in pixels.
        question: what ``question_of`` gives.
        things: what is in the picture.
        ignored: the record's, see there.

    Raises:
        InvalidRequest: a name that no answer can hold.
    """
    ordered = sorted(things, key=lambda thing: thing[1][:2])
    record = make_record(where, picture, size, question, [write_boxes(ordered, size)], own_tags=False)
    return with_boxes(record, [box for _, box in ordered], ignored, [label for label, _ in ordered])
