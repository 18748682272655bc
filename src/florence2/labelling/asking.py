"""The work of a labelling run: pictures on their way through a model, each of them a record for the journal at the end.

In: futures of pictures, the questions, and what answers them. Out: records, in the order in which they become known; one picture that fails
delays and ends nothing. So many pictures are under way as the model takes, each in a thread of its own that asks, asks what follows from
the answers, and is done. Knows nothing of the journal and of what the answers mean.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from florence2.background import in_background
from florence2.errors import EngineClosed, EngineFailed, Florence2Error, InvalidImage, InvalidOption, InvalidRequest, OutOfMemory
from florence2.labelling.answering import AnsweringModel, ModelGone
from florence2.labelling.pixels import file_of
from florence2.results import Result

if TYPE_CHECKING:
    from PIL import Image

    from florence2.images.resized import ResizedPicture
    from florence2.inputs.input import Input
    from florence2.inputs.pictures import Picture
    from florence2.labelling.questions import Plan

Record = dict[str, Any]
TICK_S = 1.0
MOST_UNANSWERED = 16
"""So many pictures in a row without an answer, and the model is taken for broken."""


@dataclass(frozen=True)
class Outcome:
    """What became of one picture.

    Attributes:
        record: for the journal.
        failure: why the model gave no answer; None where it did, or was not asked.
    """

    record: Record
    failure: Florence2Error | None = None


def ask_all(
    pictures: Iterable[Future[Picture]], plan: Plan, folder: Path, load: Callable[[], AnsweringModel], is_to_stop: Callable[[], bool]
) -> Generator[Record | None, None, None]:
    """The record of each picture; None after each second without one.

    Args:
        pictures: each with its pixels or with what is wrong with it.
        plan: the questions.
        folder: the run's, where pictures are kept that are no files.
        load: gives what answers; called when there is a picture to ask about.
        is_to_stop: whether no more pictures are to be begun. Those under way still come.

    Raises:
        InvalidRequest: a question or an option is wrong for the model.
        ModelGone: there will be no more answers.
        OSError: a picture can't be kept.
    """
    pictures = iter(pictures)
    for reading in pictures:
        image, content = reading.result()
        if not isinstance(content, InvalidImage):
            break
        yield failed(image, content)
        if is_to_stop():
            return
    else:
        return
    model = load()
    is_done = False
    try:
        yield from _Asker(model, plan, folder).records(chain([reading], pictures), is_to_stop)
        is_done = True
    finally:
        model.close(cancel=not is_done)


class _Asker:
    """Asks a model about pictures, each in a thread of its own."""

    def __init__(self, model: AnsweringModel, plan: Plan, folder: Path) -> None:
        self._model, self._plan, self._folder = model, plan, folder
        self._unanswered = Unanswered()

    def records(self, pictures: Iterator[Future[Picture]], is_to_stop: Callable[[], bool]) -> Iterator[Record | None]:
        """See ``ask_all``. After an error those under way are waited for, as their answers are not to be lost."""
        done: SimpleQueue[Future[Outcome]] = SimpleQueue()
        num_under_way, fatal, has_more = 0, None, True
        while num_under_way or has_more:
            has_more = has_more and fatal is None and not is_to_stop()
            if has_more and num_under_way < self._model.capacity:
                reading = next(pictures, None)
                has_more = reading is not None
                if reading is not None:
                    in_background("florence2-label", partial(self._outcome, reading)).add_done_callback(done.put)
                    num_under_way += 1
                if done.empty():
                    continue
            if not num_under_way:
                continue
            try:
                outcome = done.get(timeout=TICK_S).result()
                num_under_way -= 1
            except Empty:
                yield None
                continue
            except Exception as error:
                num_under_way -= 1
                fatal = fatal or error
                continue
            yield outcome.record
            fatal = fatal or self._unanswered.breakdown(outcome)
        if fatal is not None:
            raise fatal

    def _outcome(self, reading: Future[Picture]) -> Outcome:
        """What becomes of one picture; runs in its thread, and raises as ``outcome_of``."""
        image, content = reading.result()
        if isinstance(content, InvalidImage):
            return Outcome(failed(image, content))
        return outcome_of(image, content, file_of(image, content, self._folder), self._folder, self._model, self._plan)


class Unanswered:
    """Counts the pictures in a row that a model gave no answer about, and says when it is to be taken for broken."""

    def __init__(self) -> None:
        self._count = 0

    def breakdown(self, outcome: Outcome) -> ModelGone | None:
        """The error that ends a run whose model answers nothing any more; None as long as it does."""
        self._count = 0 if outcome.failure is None else self._count + 1
        if outcome.failure is None or self._count < MOST_UNANSWERED:
            return None
        return ModelGone(f"{self._count} pictures in a row got no answer, the last one for this reason: {outcome.failure.message}")


def outcome_of(
    image: Input, content: Image.Image | ResizedPicture, file: Path | None, folder: Path | None, model: AnsweringModel, plan: Plan
) -> Outcome:
    """What becomes of one picture; waits for its answers.

    Args:
        image: where it came from.
        content: its pixels.
        file: the file in the run's folder that has them; None where there is none.
        folder: the run's; None where pictures are not kept.
        model: what answers.
        plan: the questions.

    Raises:
        InvalidRequest: a question or an option is wrong for the model, whatever the picture.
        EngineClosed, ModelGone: there will be no more answers.
    """
    own = image.path if file is None and image.kind == "file" and image.part is None else file
    prompts = plan.first()
    try:
        results = model.ask(content, prompts, own)
        if following := plan.follow_up(results):
            prompts, results = prompts + following, results + _following(model, content, following, own)
    except (InvalidImage, OutOfMemory) as error:
        return Outcome(failed(image, error))
    except (InvalidRequest, EngineClosed, ModelGone):
        raise
    except Florence2Error as error:
        return Outcome(failed(image, error), error)
    answers = [_answer(prompt, result) for prompt, result in zip(prompts, results, strict=True)]
    kept = None if file is None or folder is None else file.relative_to(folder).as_posix()
    return Outcome({**_described(image), "file": kept, "size": list(content.size), "answers": answers})


def _following(model: AnsweringModel, content: Image.Image | ResizedPicture, prompts: Sequence[str], file: Path | None) -> list[Result]:
    """The answers to what follows from the first ones.

    Raises:
        EngineFailed: the model does not take it, as a caption may be too long.
    """
    try:
        return model.ask(content, prompts, file)
    except InvalidRequest as error:
        raise EngineFailed(f"what follows from its caption can't be asked: {error.message}") from error


def failed(image: Input, error: Florence2Error) -> Record:
    """The record of a picture that could not be labelled."""
    return {**_described(image), "error": {"code": error.code, "message": error.message}}


def _described(image: Input) -> Record:
    """What a record says of where a picture came from."""
    return {
        "id": image.id,
        "name": image.relative_name,
        "root": image.root,
        "path": str(image.path) if image.kind == "file" else None,
        "num_bytes": _num_bytes(image),
        "url": image.name if image.kind == "url" else None,
        "part": None if image.part is None else image.part.to_dict(),
    }


def _num_bytes(image: Input) -> int | None:
    """The length of an image's file, by which one that was changed is known; None for what is no file, or gone."""
    try:
        return image.path.stat().st_size if image.kind == "file" else None
    except OSError:
        return None


def _answer(prompt: str, result: Result) -> Record:
    """What a record says of one answer; a server that is not of this project gives whole pixels."""
    try:
        response = result.to_dict(coordinates="float")
    except InvalidOption:
        response = result.to_dict()
    return {"prompt": prompt, "response": response, "text": result.text, "finish_reason": result.finish_reason}
