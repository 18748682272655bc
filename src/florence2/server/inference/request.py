"""The values that the inference service takes and returns: images, parsed prompts and options; the results or the error of each image.

Knows no API: each API makes an ``InferenceRequest`` of its own messages, and its own messages of the ``Outcome``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from florence2.errors import InvalidRequest
from florence2.image_files import Structure
from florence2.results import Result
from florence2.server.inference.admission import Permit
from florence2.server.inference.observer import task_label
from florence2.tasks.prompt import Prompt
from florence2.tiling.tiles import Tiles


class ImageSource(Protocol):
    """One image of a request, as an API got it.

    Attributes:
        label: how it was sent, for metrics.
    """

    label: str

    async def fetch(self) -> object:
        """What ``read`` needs that has to be waited for, such as the content of a URL."""
        ...

    def read(self, fetched: object) -> Structure:
        """The image file, given what ``fetch`` returned. Runs in a thread unless small; the service counts and decodes its pixels."""
        ...

    def describe(self, error: InvalidRequest) -> InvalidRequest:
        """An error about this image in the API's words, naming the field of the request that holds the image."""
        ...


@dataclass(frozen=True)
class RequestPrompt:
    """One prompt of a request.

    Attributes:
        prompt: the parsed prompt.
        where: where the request holds it, for errors, such as "prompts[1]"; None: it is the only one.
    """

    prompt: Prompt
    where: str | None = None


@dataclass(frozen=True)
class InferenceRequest:
    """Some prompts about each of some images, for one model.

    Attributes:
        model_id: any name of the model.
        images: one image or several; they are independent of each other.
        prompts: the prompts on each image.
        options: those of ``Engine.submit``; the engine's defaults for the others.
        key_name: the name of its key, "" where none is needed; keys take turns in the engine.
        auto_orient: turn images upright by their EXIF orientation.
        keeps_going: an image's own mistake is returned in its place; otherwise the first error is raised.
        tiles: ask about overlapping parts of each image; None for the images as they are.
        reserve: called in the event loop, before an image is queued in tiles, with how many parts more than one it has; raises where there
            is no room for them.
        note_used: called in the event loop at the end, before the answer goes out.
        permit: what the request holds of the server's room; None: nobody counts.
    """

    model_id: str
    images: Sequence[ImageSource]
    prompts: Sequence[RequestPrompt]
    options: Mapping[str, Any]
    key_name: str = ""
    auto_orient: bool = True
    keeps_going: bool = False
    tiles: Tiles | None = None
    reserve: Callable[[int], None] = lambda _: None
    note_used: Callable[[Used], None] = lambda _: None
    permit: Permit | None = None

    @property
    def task(self) -> str:
        """The task by which metrics count the request."""
        first, is_one = self.prompts[0], len(self.prompts) == 1
        return task_label(first.prompt.task_key) if is_one and first.where is None else "several"


@dataclass(frozen=True)
class ImageAnswer:
    """The answer about one image.

    Attributes:
        results: one for each prompt, in their order.
        answered_at: when they were there, by ``time.perf_counter``.
    """

    results: list[Result]
    answered_at: float


@dataclass(frozen=True)
class Used:
    """What a request has cost, whether it was answered in the end or not.

    Attributes:
        model_id: the canonical id of the model.
        answers: those of the images that were answered.
        errors: those of single images of a request that keeps going.
    """

    model_id: str
    answers: Sequence[ImageAnswer]
    errors: Sequence[InvalidRequest]


@dataclass(frozen=True)
class Outcome:
    """The answers to one request.

    Attributes:
        answers: one for each image, in their order; an error only where the request keeps going.
        model_id: the canonical id of the model.
        load_s: how long loading the model took.
        is_cold_start: the request had to wait for that.
    """

    answers: list[ImageAnswer | InvalidRequest]
    model_id: str
    load_s: float
    is_cold_start: bool
