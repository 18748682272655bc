"""Answers on standard output while they come: text as it is decided and objects one a line, or one JSON object for each event.

In: the events and at last the answer to one question about one image after the other. Out: text that is written at once; what is there at
the end is what ``printing`` writes, but for the note on an answer that was cut. Knows nothing of engines.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence2.cli.infer.answers import Answer
from florence2.cli.infer.printing import CUT, NOTHING, object_line, record_of, title_of
from florence2.cli.infer.streaming import StreamedAnswer
from florence2.console import json_line, name_of, shown
from florence2.inputs.input import Input
from florence2.results import FoundObject, Result

if TYPE_CHECKING:
    from florence2.answer_events import Event


class LivePrinter(ABC):
    """Prints the answers about one image, which come one after the other."""

    @abstractmethod
    def event(self, answer: StreamedAnswer, event: Event) -> None:
        """Print what has become known of an answer."""

    @abstractmethod
    def end(self, answer: Answer, drawing: Path | None) -> None:
        """Print what is left of an answer that is complete, or has failed."""

    @abstractmethod
    def close(self) -> None:
        """End a line that was begun, whatever ends the printing."""


class LiveJson(LivePrinter):
    """One line for each event, and for each answer the line that ``--json`` prints without streaming.

    Args:
        image: the image.
        image_index: which one, from 0.
        size: its width and height.
        model: the model's name, as it was given.
    """

    def __init__(self, image: Input, image_index: int, size: tuple[int, int], model: str) -> None:
        self._image, self._image_index, self._size, self._model = image, image_index, size, model

    def event(self, answer: StreamedAnswer, event: Event) -> None:
        """See ``LivePrinter``."""
        said = _event_fields(event)
        if said is not None:
            place = {"image_index": self._image_index, "prompt_index": answer.index}
            part = {"part": self._image.part.to_dict()} if self._image.part else {}
            _print(
                {"image": name_of(self._image.name), **part, "prompt": answer.question.prompt, "event": said.pop("event"), **place, **said}
            )

    def end(self, answer: Answer, drawing: Path | None) -> None:
        """See ``LivePrinter``."""
        _print(record_of(self._image, self._size, answer, drawing, self._model))

    def close(self) -> None:
        """See ``LivePrinter``."""


def _print(record: dict[str, Any]) -> None:
    print(json_line(record), flush=True)


def _event_fields(event: Event) -> dict[str, Any] | None:
    """An event as the server's streams have it; None where it says nothing."""
    from florence2.answer_events import TokensDecided

    if isinstance(event, TokensDecided):
        return {"event": "text", "text": event.text} if event.text else None
    found = event.object
    fields = {"object_index": event.object_index, "label": found.label, "box": found.box, "quad": found.quad, "score": found.score}
    fields["polygons"] = found.polygons or None
    return {"event": "object", **{name: value for name, value in fields.items() if value is not None}}


class LiveLines(LivePrinter):
    """For people: an image's name and prompt, and below them the text as it grows or a line for each object.

    Args:
        image: the image.
        size: its width and height.
        is_one: whether there is one question, which then stands behind the image's name.
    """

    def __init__(self, image: Input, size: tuple[int, int], *, is_one: bool) -> None:
        self._title, self._is_one = title_of(image, size), is_one
        self._margin = "" if is_one else "  "
        self._is_named = False
        self._is_begun = False
        self._is_line_open = False
        self._has_text = False
        self._found: list[FoundObject] = []

    def event(self, answer: StreamedAnswer, event: Event) -> None:
        """See ``LivePrinter``."""
        from florence2.answer_events import ObjectFound, TokensDecided

        if isinstance(event, TokensDecided) and answer.is_text and event.text:
            self._begin(answer.question.title)
            self._write(event.text)
        elif isinstance(event, ObjectFound):
            self._begin(answer.question.title)
            self._found.append(event.object)
            self._line(object_line(event.object))

    def end(self, answer: Answer, drawing: Path | None) -> None:
        """See ``LivePrinter``."""
        result = answer.outcome
        if isinstance(result, Result):
            self._begin(answer.question.title)
            if result.kind != "text":
                self._rest(result.objects)
            elif not self._has_text:  # an empty line then
                self._write(result.text)
            self.close()
            if result.finish_reason == "length":
                self._line(CUT)
            if drawing is not None:
                self._line(f"drawn: {drawing}")
        self._is_begun = self._has_text = False
        self._found = []

    def close(self) -> None:
        """See ``LivePrinter``."""
        if self._is_line_open:
            self._is_line_open = False
            print(flush=True)

    def _rest(self, objects: tuple[FoundObject, ...]) -> None:
        """The objects that no event has reported; all of them where the whole answer reads otherwise than its beginning."""
        printed = tuple(self._found)
        if printed != objects[: len(printed)]:
            self._line("as a whole:")
            printed = ()
        for found in objects[len(printed) :]:
            self._line(object_line(found))
        if not objects:
            self._line(NOTHING)

    def _begin(self, title: str) -> None:
        """Name the image and the question, if that is not done yet."""
        if self._is_begun:
            return
        self._is_begun = True
        if not self._is_one and not self._is_named:
            print(shown(self._title))
        self._is_named = True
        print(shown(f"{self._title + ' ' if self._is_one else self._margin}{title}"), flush=True)

    def _line(self, text: str) -> None:
        print(shown(f"{self._margin}  {text}"), flush=True)

    def _write(self, text: str) -> None:
        """Text that follows what stands in the line, which is begun if it is not there."""
        self._has_text = True
        for index, part in enumerate(text.split("\n")):
            if index:
                self.close()
            if not self._is_line_open:
                self._is_line_open = True
                sys.stdout.write(f"{self._margin}  ")
            sys.stdout.write(shown(part))
        sys.stdout.flush()
