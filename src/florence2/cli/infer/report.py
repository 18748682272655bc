"""The output of ``florence2 infer``: answers on standard output, errors and progress on standard error, drawings in a folder.

In: images with their answers, one after the other. Out: text and pictures, and the exit code that they come to. Each error is reported
once. Knows nothing of engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from florence2.cli.infer.answers import Answer, ImageAnswers, without_picture
from florence2.cli.infer.drawings import Drawer, NotDrawn
from florence2.cli.infer.live import LiveJson, LiveLines
from florence2.cli.infer.printing import print_json, print_lines
from florence2.cli.infer.questions import Question
from florence2.cli.infer.streaming import StreamedImage
from florence2.cli.progress import Progress, show_progress
from florence2.console import exit_code, report_error, shown
from florence2.errors import Florence2Error, InvalidImage
from florence2.inputs.input import Input
from florence2.inputs.pictures import reason
from florence2.results import Result

if TYPE_CHECKING:
    from PIL import Image


class Report:
    """What is printed and drawn of the answers.

    Args:
        drawer: draws the answers; None for no drawings.
        as_json: print for programs.
        model: the model's name, as it was given.
    """

    def __init__(self, drawer: Drawer | None, *, as_json: bool, model: str) -> None:
        self._drawer, self._as_json, self._model = drawer, as_json, model
        self._progress = Progress()
        self._errors: dict[int, Florence2Error] = {}  # by identity: one of an image is that of all questions about it
        self._num_answers = self._num_images = 0

    @property
    def exit_code(self) -> int:
        """0 if all went well, 2 if nothing was answered for reasons that the user can mend, 1 for everything in between."""
        if not self._errors:
            return 0
        return 2 if not self._num_answers and all(exit_code(error) == 2 for error in self._errors.values()) else 1

    @contextmanager
    def progress(self, total: int | None) -> Iterator[None]:
        """Surrounds the work on the images, whose progress is shown; the total is None where it is not known."""
        with show_progress("images", None if total is None else total - self._num_images) as self._progress:
            yield
        self._progress = Progress()

    def refused(self, images: Sequence[Input]) -> None:
        """Report the errors of images that can't be read."""
        for image in images:
            if image.error is not None:
                self._report_once(image.error, image)

    def answered(self, answered: ImageAnswers) -> None:
        """Print, and draw, what was answered about an image."""
        errors = [answer.outcome for answer in answered.answers if isinstance(answer.outcome, Florence2Error)]
        self._num_answers += sum(isinstance(answer.outcome, Result) for answer in answered.answers)
        with self._progress.printing():  # of drawings too, which may log warnings
            drawings = [self._drawing(answered.image, answered.picture, answer, errors) for answer in answered.answers]
            for error in errors:
                self._report_once(error, answered.image)
            if self._as_json:
                print_json(answered, drawings, self._model)
            else:
                print_lines(answered, drawings)
        self._progress.advance()
        self._num_images += 1

    def streamed(self, streamed: StreamedImage, questions: Sequence[Question]) -> None:
        """Print, and draw, the answers about an image while they come."""
        image, picture = streamed.image, streamed.content
        if isinstance(picture, InvalidImage):
            self.answered(without_picture(image, picture, questions))
            return
        if self._as_json:
            printer = LiveJson(image, self._num_images, picture.size, self._model)
        else:
            printer = LiveLines(image, picture.size, is_one=len(questions) == 1)
        with self._progress.printing(), closing(printer):
            for answer in streamed.answers:
                for event in answer.events():
                    printer.event(answer, event)
                printer.close()  # what was begun, before lines on standard error
                whole = answer.answer()
                errors = [whole.outcome] if isinstance(whole.outcome, Florence2Error) else []
                self._num_answers += not errors
                drawing = self._drawing(image, picture, whole, errors)
                for error in errors:
                    self._report_once(error, image)
                printer.end(whole, drawing)
        self._progress.advance()
        self._num_images += 1

    def _drawing(self, image: Input, picture: Image.Image | None, answer: Answer, errors: list[Florence2Error]) -> Path | None:
        """Where the answer was drawn; what is in the way joins the errors."""
        if self._drawer is None or picture is None or not isinstance(answer.outcome, Result):
            return None
        try:
            return self._drawer.draw(image.stem, picture, answer.outcome)
        except (OSError, MemoryError) as error:
            name, folder = shown(image.shown), shown(self._drawer.folder)
            errors.append(NotDrawn(f"{name}: no drawing in {folder}: {reason(error)}"))
            return None

    def _report_once(self, error: Florence2Error, image: Input) -> None:
        if id(error) not in self._errors:
            report_error(error, image.shown)
            self._errors[id(error)] = error
