"""The answers to each question about each image while they are generated, in the order of the images and of the questions.

In: an engine, pictures and questions. Out: for each image its answers, each with its events as they come. What is not its turn yet is
answered in the meantime, and its events wait. Knows nothing of printing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from florence2.background import in_background
from florence2.cli.infer.answers import Answer, Pending, bound, submit
from florence2.cli.infer.questions import Question
from florence2.errors import InvalidImage, InvalidRegion
from florence2.in_flight import NUM_IN_FLIGHT
from florence2.inputs.input import Input

if TYPE_CHECKING:
    from PIL import Image

    from florence2.answer_events import Event
    from florence2.engine.engine import Engine
    from florence2.inputs.pictures import Picture
    from florence2.results import Result
    from florence2.tasks.prompt import Prompt

    Events = SimpleQueue[Event | Future[Result]]


class StreamedAnswer:
    """One question about one image, and its answer as far as it is known.

    Attributes:
        question: the question.
        index: which of the questions, from 0.
        is_text: whether it is answered in words; otherwise with objects.
    """

    def __init__(self, question: Question, prompt: Prompt | InvalidRegion, events: Events, pending: Pending, index: int) -> None:
        self.question, self.index = question, index
        self.is_text = not isinstance(prompt, InvalidRegion) and prompt.kind == "text"
        self._events, self._pending = events, pending
        pending[index].add_done_callback(events.put)

    def events(self) -> Iterator[Event]:
        """The events to the last one; waits for each."""
        while not isinstance(event := self._events.get(), Future):
            yield event

    def answer(self) -> Answer:
        """The whole answer; waits for it."""
        return self._pending.answer(self.index, self.question)


@dataclass(frozen=True)
class StreamedImage:
    """One image and its answers, each to be read while it comes.

    Attributes:
        image: where it came from.
        content: its pixels, or what is wrong with it.
        answers: one for each question, in order; none where there is no picture.
    """

    image: Input
    content: Image.Image | InvalidImage
    answers: list[StreamedAnswer]


def stream_all(
    engine: Engine, pictures: Iterable[Future[Picture]], questions: Sequence[Question], options: dict[str, Any]
) -> Iterator[StreamedImage]:
    """Each image with its answers, in order, as soon as they are in the engine's queue.

    Args:
        engine: gives the answers.
        pictures: each with its pixels or with what is wrong with it.
        questions: all of them about each image.
        options: of every request.

    Raises:
        InvalidRequest: a mistake that is the same for every image.
    """

    def submitted(reading: Future[Picture], before: Future[StreamedImage] | None) -> StreamedImage:
        image, content = reading.result()
        if before is not None:
            wait([before])  # so that the engine begins with the image that is printed first
        if isinstance(content, InvalidImage):
            return StreamedImage(image, content, [])
        return StreamedImage(image, content, _submitted(engine, content, questions, options))

    started: deque[Future[StreamedImage]] = deque()
    pulling: Future[Future[Picture] | None] | None = None
    pull = partial(in_background, "florence2-read", partial(next, iter(pictures), None))
    while True:
        pulling = pulling or pull()
        if started:
            either: list[Future[Any]] = [pulling, started[0]]
            wait(either, return_when=FIRST_COMPLETED)  # an address that does not answer delays nothing before it
        if started and (len(started) > NUM_IN_FLIGHT or not pulling.done()):
            yield started.popleft().result()
            continue
        reading, pulling = pulling.result(), None
        if reading is None:
            break
        before = started[-1] if started else None
        started.append(in_background("florence2-submit", partial(submitted, reading, before)))
    while started:
        yield started.popleft().result()


def _submitted(engine: Engine, picture: Image.Image, questions: Sequence[Question], options: dict[str, Any]) -> list[StreamedAnswer]:
    """The answers about one picture, on their way; a question that is wrong for this picture has no events."""
    prompts = [bound(question, picture.size, options["allow_unknown_tag"]) for question in questions]
    queues: list[Events] = [SimpleQueue() for _ in prompts]
    valid = [queue for queue, prompt in zip(queues, prompts, strict=True) if not isinstance(prompt, InvalidRegion)]
    pending = submit(engine, picture, prompts, options, on_event=lambda event: valid[event.index].put(event))
    asked = enumerate(zip(questions, prompts, queues, strict=True))
    return [StreamedAnswer(question, prompt, queue, pending, index) for index, (question, prompt, queue) in asked]
