"""What the two processes say to each other: plain values, pickled by the connection between them.

A call has a number, by which its answer finds it. A model is named by the number of the call that loaded it. The child sends lists of
messages: everything that has come up since it was last awake. Knows nothing of who sends or reads them.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from florence2.answer_events import Event
from florence2.engine_stats import EngineStats
from florence2.errors import EngineFailed, Florence2Error
from florence2.results import Result
from florence2.tasks.prompt import Prompt
from florence2.tiling.tiles import TileBox
from florence2.weights.defaults import GenerationDefaults, ImageSettings


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded.

    Attributes:
        source: an alias, hub id or folder.
        adapters: LoRA adapters that are merged into it.
        device: as ``florence2.load`` takes it, and so are ``precision`` and ``image_cache_bytes``.
        is_warmed_up: one picture is answered before the model counts as loaded.
    """

    source: str
    adapters: tuple[str, ...] = ()
    device: str = "auto"
    precision: str = "auto"
    image_cache_bytes: int = 0
    is_warmed_up: bool = True


@dataclass(frozen=True)
class ModelFacts:
    """What the server has to know of a model in order to prepare its requests.

    Attributes:
        tokenizer: the tokenizer as JSON.
        folder: the folder that its files are in.
        image: how pictures are resized.
        generation: the checkpoint's defaults.
        num_image_tokens: how many tokens a picture has.
        max_prompt_tokens: the most tokens of a prompt.
        max_answer_tokens: the most tokens of an answer.
        device: the device's name.
        precision: what "auto" has chosen.
    """

    tokenizer: str
    folder: Path
    image: ImageSettings
    generation: GenerationDefaults
    num_image_tokens: int
    max_prompt_tokens: int
    max_answer_tokens: int
    device: str
    precision: str


@dataclass(frozen=True)
class PictureLayout:
    """Where the pixels of a picture and of its tiles are: one after the other, from the beginning of a lane.

    Attributes:
        height: of each of them, in pixels of the model.
        width: the same.
        size: width and height of the picture itself.
        boxes: the tiles behind it, by their boxes.
    """

    height: int
    width: int
    size: tuple[int, int]
    boxes: tuple[TileBox, ...] = ()

    @property
    def num_bytes(self) -> int:
        """The size of all of them."""
        return self.height * self.width * 3 * (1 + len(self.boxes))


@dataclass(frozen=True)
class Load:
    """Load a model; ``Returned`` has ``ModelFacts``."""

    call: int
    options: LoadOptions


@dataclass(frozen=True)
class Submit:
    """Queue prompts about the picture in a lane; ``Returned`` says that they are queued, and that the lane is free again."""

    call: int
    model: int
    lane: int
    layout: PictureLayout
    prompts: tuple[tuple[Prompt, tuple[int, ...]], ...]
    options: dict[str, Any]
    is_streamed: bool


@dataclass(frozen=True)
class Cancel:
    """Take one of the prompts of a ``Submit`` out of the engine."""

    call: int
    index: int


@dataclass(frozen=True)
class Invoke:
    """Call a method of a model's engine, one of ``METHODS``; ``Returned`` has its value."""

    call: int
    model: int
    method: str
    arguments: dict[str, Any]


METHODS = frozenset({"close", "add_adapter", "remove_adapter"})


@dataclass(frozen=True)
class Ready:
    """The child has imported what it needs, and takes calls."""


@dataclass(frozen=True)
class Returned:
    """A call's value, or its error."""

    call: int
    value: Any = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Reported:
    """An event of an answer."""

    call: int
    event: Event


@dataclass(frozen=True)
class Answered:
    """The outcome of one prompt: the result, an error, or neither where it was cancelled."""

    call: int
    index: int
    result: Result | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Beat:
    """The child is alive; what its models are doing."""

    stats: dict[int, EngineStats]


@dataclass(frozen=True)
class Logged:
    """A line for the log."""

    logger: str
    level: int
    text: str


class CauseElsewhere(Exception):
    """The traceback of a failure in the other process, as text."""

    def __str__(self) -> str:
        """The traceback on lines of its own."""
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class Failure:
    """An error that travels; its traceback goes along as text, for the log.

    Attributes:
        error: the error itself.
        trace: the traceback of what caused it; "" for a mistake of the caller.
    """

    error: Florence2Error
    trace: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """The failure behind an exception; one that is not of this project becomes ``EngineFailed``."""
        cause = error.__cause__ if isinstance(error, Florence2Error) else error
        known = error if isinstance(error, Florence2Error) else EngineFailed(f"{type(error).__name__}: {error}")
        try:
            ForkingPickler.dumps(known)
        except Exception:  # it holds something that can't travel
            known = EngineFailed(known.message, field=known.field)
        return cls(known, "" if cause is None else "".join(traceback.format_exception(cause)))

    def exception(self) -> Florence2Error:
        """The error, to be raised here."""
        if self.trace:
            self.error.__cause__ = CauseElsewhere(self.trace)
        return self.error
