"""What the ingress and the replicas of engines say to each other: plain values, pickled by Ray.

Knows nothing of who sends or reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from florence2.answer_events import Event
from florence2.engine_process.messages import Failure
from florence2.image_files import Structure
from florence2.results import Result
from florence2.server.inference.request import InferenceRequest, RequestPrompt
from florence2.tiling.tiles import Tiles


@dataclass(frozen=True)
class Asked:
    """Some prompts about one image.

    Attributes:
        model_id: the canonical id of the model.
        file: the image file, whose structure was read.
        prompts: the parsed prompts.
        options: those of ``Engine.submit``.
        key_name: the name of the request's key; keys take turns in the engine.
        auto_orient: turn the image upright by its EXIF orientation.
        tiles: ask about overlapping parts of the image.
    """

    model_id: str
    file: Structure
    prompts: tuple[RequestPrompt, ...]
    options: dict[str, Any]
    key_name: str
    auto_orient: bool
    tiles: Tiles | None

    @classmethod
    def of(cls, model_id: str, request: InferenceRequest, file: Structure) -> Asked:
        """What a request asks about one of its images."""
        return cls(
            *(model_id, file, tuple(request.prompts), dict(request.options), request.key_name, request.auto_orient, request.tiles),
        )


@dataclass(frozen=True)
class Happened:
    """An event of an answer, with the picture's size."""

    size: tuple[int, int]
    event: Event


Reply = list[Result] | Failure
"""The end of an answer: a result for each prompt, or the error of all."""
