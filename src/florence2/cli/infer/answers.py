"""The answers to each question about each image, in the order of the images.

In: an engine, pictures and questions. Out: for each image its answers, each a result or an error. An image is preprocessed and encoded
once, however many questions there are. Knows nothing of files and of printing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from florence2.cli.infer.questions import Question
from florence2.errors import Florence2Error, InvalidImage, InvalidRegion
from florence2.in_flight import in_flight
from florence2.inputs.input import Input

if TYPE_CHECKING:
    from PIL import Image

    from florence2.answer_events import OnEvent
    from florence2.engine.engine import Engine
    from florence2.inputs.pictures import Picture
    from florence2.results import Result
    from florence2.tasks.prompt import Prompt


@dataclass(frozen=True)
class Answer:
    """One question's answer about one image.

    Attributes:
        question: the question.
        outcome: the result, or what is wrong.
        seconds: from submitting the image to the engine until this answer was there, the time in the queue included; None for an error.
    """

    question: Question
    outcome: Result | Florence2Error
    seconds: float | None = None


@dataclass(frozen=True)
class ImageAnswers:
    """One image and all its answers.

    Attributes:
        image: where it came from.
        answers: one for each question, in order.
        size: width and height in pixels; None where there is no picture.
        picture: its pixels; None where there is none, or it is not kept.
    """

    image: Input
    answers: list[Answer]
    size: tuple[int, int] | None = None
    picture: Image.Image | None = None


def answer_all(
    engine: Engine, pictures: Iterable[Future[Picture]], questions: Sequence[Question], options: dict[str, Any], *, keep_pictures: bool
) -> Iterator[ImageAnswers]:
    """Each image with its answers, in order.

    Args:
        engine: gives the answers.
        pictures: each with its pixels or with what is wrong with it.
        questions: all of them about each image.
        options: of every request.
        keep_pictures: the pictures are returned with the answers.

    Raises:
        InvalidRequest: a mistake that is the same for every image.
    """

    def submit_all(picture: Picture) -> Pending:
        if isinstance(picture.content, InvalidImage):
            return Pending([])
        prompts = [bound(question, picture.content.size, options["allow_unknown_tag"]) for question in questions]
        return submit(engine, picture.content, prompts, options)

    with closing(in_flight(pictures, submit_all)) as answered:
        for (image, content), pending in answered:
            if isinstance(content, InvalidImage):
                yield without_picture(image, content, questions)
            else:
                yield ImageAnswers(image, pending.answers(questions), content.size, content if keep_pictures else None)


def without_picture(image: Input, error: InvalidImage, questions: Sequence[Question]) -> ImageAnswers:
    """The answers about an image that can't be read: each is the same error."""
    return ImageAnswers(image, [Answer(question, error) for question in questions])


class Pending(list["Future[Result]"]):
    """The futures of one image's questions, and how long each took."""

    def __init__(self, futures: Iterable[Future[Result]], started: float = 0.0) -> None:
        super().__init__(futures)
        self._started = started
        self._ended: dict[int, float] = {}
        for index, future in enumerate(self):
            future.add_done_callback(partial(_note_end, self._ended, index))

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, waited for."""
        return [self.answer(index, question) for index, question in enumerate(questions)]

    def answer(self, index: int, question: Question) -> Answer:
        """The answer to one of the questions, waited for."""
        try:
            result = self[index].result()
        except Florence2Error as error:
            return Answer(question, error)
        ended = self._ended.get(index, time.perf_counter())  # a future wakes its waiter before it calls its callbacks
        return Answer(question, result, ended - self._started)


def _note_end(ended: dict[int, float], index: int, _: Future[Result]) -> None:
    ended[index] = time.perf_counter()


def submit(
    engine: Engine,
    picture: Image.Image,
    prompts: Sequence[Prompt | InvalidRegion],
    options: dict[str, Any],
    on_event: OnEvent | None = None,
) -> Pending:
    """All prompts about one picture in the engine's queue; what is wrong with a region, or with the picture, is an error at once.

    Args:
        engine: gives the answers.
        picture: the pixels.
        prompts: the prompts for a picture of this size, as ``bound`` gives them.
        options: of every request.
        on_event: called with the engine's events in its thread; their ``index`` counts the prompts that are valid.
    """
    valid = [prompt for prompt in prompts if not isinstance(prompt, InvalidRegion)]
    started = time.perf_counter()
    try:
        submitted = iter(engine.submit_many(picture, valid, on_event=on_event, **options) if valid else ())
    except InvalidImage as error:  # too large for its tiles; the other pictures may not be
        return Pending([_failed(prompt if isinstance(prompt, InvalidRegion) else error) for prompt in prompts], started)
    return Pending([_failed(prompt) if isinstance(prompt, InvalidRegion) else next(submitted) for prompt in prompts], started)


def bound(question: Question, image_size: tuple[int, int], allow_unknown_tag: bool) -> Prompt | InvalidRegion:
    """The prompt for a picture of this size, or what is wrong with its region there."""
    from florence2.tasks.prompt import build_prompt

    text, region = question.text, question.region
    try:
        return build_prompt(question.prompt, text=text, region=region, image_size=image_size, allow_unknown_tag=allow_unknown_tag)
    except InvalidRegion as error:
        return error


def _failed(error: InvalidRegion | InvalidImage) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_exception(error)
    return future
