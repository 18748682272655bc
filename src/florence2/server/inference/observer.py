"""What the inference service reports of its work, for metrics. Knows nothing of who counts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from florence2.results import Result
from florence2.tasks.table import TASKS

CANCELLED = "cancelled"
"""The code of an image whose caller stopped waiting."""


class Observer(Protocol):
    """Something that counts. Called in the event loop."""

    def note_answer(
        self, model: str, task: str, results: Sequence[Result], source: str, image_s: float, engine_s: float, first_s: float | None
    ) -> None:
        """Note an image that was answered.

        Args:
            model: the canonical id.
            task: the prompt's tag; "free" for free text, "several" for several prompts.
            results: one for each prompt.
            source: how the image was sent.
            image_s: the time until its prompts were in the engine's queue.
            engine_s: the time from then on.
            first_s: the time from then on to the first text or object; None: the answer was not streamed, or had neither.
        """
        ...

    def note_failure(self, model: str, task: str, code: str) -> None:
        """Note an image that was not answered: the error's code, or ``CANCELLED``."""
        ...


def task_label(prompt: str) -> str:
    """The tag in a prompt or task key, or one word for all free prompts."""
    return next((tag for tag in TASKS if tag in prompt), "free")
