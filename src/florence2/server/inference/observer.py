"""What the inference service reports of its work: for metrics, traces and the usage of keys. Knows nothing of who counts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from florence2.results import Result
from florence2.tasks.table import TASKS

CANCELLED = "cancelled"
"""The code of an image whose caller stopped waiting."""


@dataclass(frozen=True)
class Answered:
    """An image that was answered. All durations are in seconds, and follow each other.

    Attributes:
        model: the canonical id.
        task: the prompt's tag; "free" for free text, "several" for several prompts.
        results: one for each prompt.
        source: how the image was sent.
        key_name: the name of the request's key; "" where none is needed.
        began_at: when its work began, by ``time.perf_counter``.
        fetch_s: getting the image file, such as the content of a URL.
        preprocess_s: from then until its prompts were in the engine's queue: decoding and resizing, and waiting for a thread that does it.
        decode_s: how much of that passed before its pixels were there.
        engine_s: from the queue to the answer.
        first_s: from the queue to the first text or object; None: the answer was not streamed, or had neither.
    """

    model: str
    task: str
    results: Sequence[Result]
    source: str
    key_name: str
    began_at: float
    fetch_s: float
    preprocess_s: float
    decode_s: float
    engine_s: float
    first_s: float | None = None

    @property
    def image_s(self) -> float:
        """The time until its prompts were in the engine's queue."""
        return self.fetch_s + self.preprocess_s

    @property
    def total_s(self) -> float:
        """The time from the beginning to the answer."""
        return self.image_s + self.engine_s


@dataclass(frozen=True)
class Failed:
    """An image that was not answered.

    Attributes:
        model: the canonical id.
        task: as of ``Answered``.
        code: the error's code, or ``CANCELLED``.
        key_name: as of ``Answered``.
        began_at: when its work began, by ``time.perf_counter``.
        total_s: the seconds from then until it failed.
    """

    model: str
    task: str
    code: str
    key_name: str
    began_at: float
    total_s: float


class Observer(Protocol):
    """Something that counts. Called in the event loop, in the context of the request."""

    def note_answer(self, answered: Answered) -> None:
        """Note an image that was answered."""
        ...

    def note_failure(self, failed: Failed) -> None:
        """Note an image that was not answered."""
        ...


def task_label(prompt: str) -> str:
    """The tag in a prompt or task key, or one word for all free prompts."""
    return next((tag for tag in TASKS if tag in prompt), "free")
