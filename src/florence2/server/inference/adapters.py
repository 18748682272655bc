"""Models that are a LoRA adapter over another model, whose engine and weights they share.

In: the engine of the base and an adapter. Out: an engine as the server knows it, which answers by the adapter. Knows nothing of which
models are loaded.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from florence2.engine_stats import EngineStats
from florence2.errors import Florence2Error, NeedsMerging
from florence2.results import Result
from florence2.tasks.prompt import Prompt

if TYPE_CHECKING:
    from florence2.answer_events import OnEvent
    from florence2.server.inference.answering_engine import AnsweringEngine, AnyEngine

logger = logging.getLogger(__name__)

_numbers = itertools.count(1)  # a name is never given twice: an adapter may be loaded again before its last requests are answered


class AdapterView:
    """An engine that answers by one of its adapters.

    Args:
        base: the engine that has the adapter.
        name: the adapter's name there.

    Attributes:
        base: the same.
    """

    def __init__(self, base: AnsweringEngine, name: str) -> None:
        self.base = base
        self._name = name

    @property
    def num_beams(self) -> int:
        """How many beams a request searches with that does not say so itself."""
        return self.base.num_beams

    @property
    def max_answer_tokens(self) -> int:
        """The most tokens that an answer can have."""
        return self.base.max_answer_tokens

    def prepare(self, prompt: Prompt) -> Any:
        """The prompt as ``submit_many`` takes it."""
        return self.base.prepare(prompt)

    def submit_many(self, image: Any, prompts: Sequence[Any], *, on_event: OnEvent | None = None, **options: Any) -> list[Future[Result]]:
        """One future for each of several prepared prompts about one image, answered by the adapter."""
        return self.base.submit_many(image, prompts, on_event=on_event, adapter=self._name, **options)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of text that a token stands for."""
        return self.base.token_bytes(token_id)

    def stats(self) -> EngineStats:
        """Nothing: what the engine is doing is counted for the base, which computes it."""
        return EngineStats()

    def add_adapter(self, name: str, source: str) -> None:
        """Add an adapter to the base."""
        self.base.add_adapter(name, source)

    def remove_adapter(self, name: str) -> None:
        """Remove an adapter of the base."""
        self.base.remove_adapter(name)

    def close(self, *, cancel: bool = False) -> None:
        """Take no more requests; the base goes on, and answers those that are there."""
        with suppress(Florence2Error):  # the base has ended already
            self.base.remove_adapter(self._name)


def add_over(base: AnsweringEngine, model_id: str, adapter: str, load_merged: Callable[[], AnsweringEngine]) -> AnsweringEngine:
    """An engine for an adapter: the base's, or one of its own for an adapter that can't share the base's weights.

    Args:
        base: the engine of the base.
        model_id: the name of the model.
        adapter: a folder or hub id.
        load_merged: loads the base once more with the adapter merged.
    """
    name = f"{model_id}#{next(_numbers)}"
    try:
        base.add_adapter(name, adapter)
    except NeedsMerging as reason:
        logger.warning("%s is loaded with weights of its own: %s", model_id, reason)
        return load_merged()
    return AdapterView(base, name)


def computing_engine(engine: AnyEngine) -> AnyEngine:
    """The engine that computes the answers: that of the base for an adapter, or else the engine itself."""
    return engine.base if isinstance(engine, AdapterView) else engine
