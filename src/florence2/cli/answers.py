"""The answers to each question about each image, in the order of the images; some images are under way at once.

In: an engine, pictures and questions. Out: for each image its answers, each a result or what is wrong with it. An image is prepared and
encoded once, however many questions there are. Knows nothing of files and of printing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from florence2.cli.inputs import Input
from florence2.cli.questions import Question
from florence2.errors import Florence2Error, InvalidRegion

if TYPE_CHECKING:
    from PIL import Image

    from florence2.cli.pictures import Reading
    from florence2.engine.engine import Engine
    from florence2.results import Result

IMAGES_AHEAD = 8  # decoded and queued before the oldest answer is printed


@dataclass(frozen=True)
class Answer:
    """One question's answer about one image.

    Attributes:
        question: what was asked.
        outcome: the result, or what is wrong.
        seconds: from handing the image to the engine until this answer was there, the wait behind other images included.
    """

    question: Question
    outcome: Result | Florence2Error
    seconds: float | None = None


@dataclass(frozen=True)
class Answered:
    """One image and all its answers.

    Attributes:
        image: where it came from.
        answers: one for each question, in order.
        size: width and height in pixels; None where there is no picture.
        picture: its pixels, where they are kept.
    """

    image: Input
    answers: list[Answer]
    size: tuple[int, int] | None = None
    picture: Image.Image | None = None


class _Waiting:
    """An answer that is due, or what is wrong with its question."""

    def __init__(self, question: Question, outcome: Future[Result] | Florence2Error, started: float) -> None:
        self._question, self._outcome, self._started = question, outcome, started
        self._ended: float | None = None
        self.future = outcome if isinstance(outcome, Future) else None
        if self.future is not None:
            self.future.add_done_callback(self._note)

    def _note(self, _: Future[Result]) -> None:
        self._ended = time.perf_counter()

    def settled(self) -> Answer:
        """The answer, waited for."""
        if isinstance(self._outcome, Florence2Error):
            return Answer(self._question, self._outcome)
        try:
            result = self._outcome.result()
        except Florence2Error as error:
            return Answer(self._question, error)
        ended = time.perf_counter() if self._ended is None else self._ended  # a future wakes its waiter first
        return Answer(self._question, result, ended - self._started)


def answer_all(
    engine: Engine, images: Iterable[Reading], questions: Sequence[Question], options: dict[str, Any], *, keep_pictures: bool
) -> Iterator[Answered]:
    """Each image with its answers, in order.

    Args:
        engine: who answers.
        images: each with its picture to come, or with what is wrong with it.
        questions: asked about each of them.
        options: of every request.
        keep_pictures: whether the pictures come back with the answers.

    Raises:
        InvalidRequest: a mistake that every image would meet.
    """
    under_way: deque[tuple[Answered, list[_Waiting]]] = deque()
    for image, reading in images:
        while under_way and not _is_turn_of(reading, under_way):
            yield _settled(*under_way.popleft())
        picture = reading.result()
        if isinstance(picture, Florence2Error):
            under_way.append((refused(image, picture, questions), []))
        else:
            waiting = _submitted(engine, picture, questions, options)
            under_way.append((Answered(image, [], picture.size, picture if keep_pictures else None), waiting))
    while under_way:
        yield _settled(*under_way.popleft())


def _is_turn_of(reading: Future[Any], under_way: deque[tuple[Answered, list[_Waiting]]]) -> bool:
    """Whether the next picture comes before the answers about the oldest one; waits for whatever is there first."""
    due = {waiting.future for waiting in under_way[0][1] if waiting.future is not None}
    while len(under_way) < IMAGES_AHEAD and not reading.done():
        if not (due := {future for future in due if not future.done()}):
            return False
        wait([reading, *due], return_when=FIRST_COMPLETED)
    return len(under_way) < IMAGES_AHEAD


def refused(image: Input, error: Florence2Error, questions: Sequence[Question]) -> Answered:
    """An image without a picture: every question has the same error for an answer."""
    return Answered(image, [Answer(question, error) for question in questions])


def _submitted(engine: Engine, picture: Image.Image, questions: Sequence[Question], options: dict[str, Any]) -> list[_Waiting]:
    """All questions about one picture in the queue, but those whose region lies outside of it."""
    prompts: dict[int, str] = {}
    errors: dict[int, Florence2Error] = {}
    for index, question in enumerate(questions):
        prompt = _in_one(question, picture.size, options["allow_unknown_tag"])
        if isinstance(prompt, str):
            prompts[index] = prompt
        else:
            errors[index] = prompt
    started = time.perf_counter()
    futures = dict(zip(prompts, engine.submit_many(picture, list(prompts.values()), **options), strict=True)) if prompts else {}
    return [_Waiting(question, errors.get(index) or futures[index], started) for index, question in enumerate(questions)]


def _in_one(question: Question, image_size: tuple[int, int], allow_unknown_tag: bool) -> str | InvalidRegion:
    """The question as one prompt for a picture of this size, or what is wrong with its region there."""
    from florence2.tasks.prompt import prompt_in_one

    text, region = question.text, question.region
    try:
        return prompt_in_one(question.prompt, text=text, region=region, image_size=image_size, allow_unknown_tag=allow_unknown_tag)
    except InvalidRegion as error:
        return error


def _settled(answered: Answered, waiting: list[_Waiting]) -> Answered:
    """The image with what it waited for."""
    return replace(answered, answers=[*answered.answers, *(one.settled() for one in waiting)])
