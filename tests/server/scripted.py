"""An engine that reports given events at its own pace, in a thread, in place of a model.

``load_everywhere()`` makes every application of this process answer with one; a server process calls it in its prelude.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from fixtures.fake_engine import FakeEngine, answer_to
from florence2.answer_events import Event, OnEvent, TokensDecided
from florence2.errors import EngineFailed
from florence2.results import Result
from florence2.server.inference import loading

NUM_WORDS = 2000


class ScriptedEngine(FakeEngine):
    """Reports the events for each prompt, as many as ``max_new_tokens``, and then fails, or answers with their text.

    Args:
        events: what is reported for each prompt.
        error: what comes in place of the answer.
        pause_s: how long to wait before each event and before the end.

    Attributes:
        events: what is reported for each prompt.
        num_reported: how many events were reported so far.
    """

    def __init__(self, events: Sequence[Event], error: Exception | None = None, *, pause_s: float = 0.0) -> None:
        super().__init__()
        self.hold = True
        self.num_reported = 0
        self.events, self._error, self._pause_s = events, error, pause_s

    def submit_many(self, image: Any, prompts: Any, *, on_event: OnEvent | None = None, **options: Any) -> list[Future[Result]]:
        futures = super().submit_many(image, prompts, **options)
        asked = self.asked[-len(futures) :]
        threading.Thread(target=self._play, args=(futures, asked, image.size, on_event), daemon=True).start()
        return futures

    def _play(self, futures: list[Future[Result]], asked: list[Any], size: tuple[int, int], on_event: OnEvent | None) -> None:
        for index, future in enumerate(futures):
            text = ""
            try:
                for event in self.events[: asked[index].get("max_new_tokens")]:
                    time.sleep(self._pause_s)
                    if future.cancelled():
                        break
                    self.num_reported += 1
                    text += getattr(event, "text", "")
                    if on_event is not None:
                        on_event(replace(event, index=index))
                time.sleep(self._pause_s)
            except Exception as error:
                future.set_exception(EngineFailed(str(error)))
                continue
            if not future.set_running_or_notify_cancel():
                continue
            if self._error is not None:
                future.set_exception(self._error)
            else:
                future.set_result(replace(answer_to(asked[index]["bound"], size, scores=False), text=text))


def words(*parts: str) -> list[Event]:
    """One event for each part of a text; their ``raw`` is left out."""
    return [TokensDecided((number,), part, "") for number, part in enumerate(parts)]


def load_everywhere(word: str, pause_s: float) -> None:
    """Answer with a word and a number many times, so long apart, in all applications of this process."""

    def load(self: Any, source: str, adapters: Any = ()) -> Any:
        return ScriptedEngine(words(*(f" {word}{number}" for number in range(NUM_WORDS))), pause_s=pause_s)

    loading.EngineLoader.__call__ = load  # type: ignore[method-assign]
