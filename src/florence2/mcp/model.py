"""The model that answers: loaded in the background, asked in turn, and left in order.

In: a function that loads an engine, pictures and prompts. Out: results. A call waits for the model, the next one tries a failed load again,
and a caller that leaves takes its prompts out of the engine. Knows nothing of tools and of the protocol.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from florence2.awaited_answers import cancelling_queued, results_of
from florence2.background import in_background
from florence2.errors import EngineClosed

if TYPE_CHECKING:
    from PIL.Image import Image

    from florence2.results import Result
    from florence2.tasks.prompt import Prompt

logger = logging.getLogger(__name__)


class AnsweringEngine(Protocol):
    """What is asked of an engine."""

    def prepare(self, prompt: Prompt) -> Any:
        """The prompt tokenized."""
        ...

    def submit_many(self, image: Any, prompts: Sequence[Any], **options: Any) -> list[Future[Result]]:
        """A future for each prompt."""
        ...

    def close(self, *, cancel: bool = False) -> None:
        """End it."""
        ...


class AnsweringModel(Protocol):
    """What tools ask: a model that is loaded here, or one of a server.

    Attributes:
        name: what answers call it.
    """

    name: str

    def start(self) -> object:
        """Begin to get ready, without waiting for it."""
        ...

    async def prepare(self, prompts: Sequence[Prompt]) -> Sequence[Any]:
        """The prompts for ``answer``, once the model is there."""
        ...

    async def answer(self, picture: Image, prompts: Sequence[Any], options: Mapping[str, Any]) -> list[Result]:
        """The results of prompts about one picture, in their order."""
        ...

    def close(self) -> bool:
        """End it; False if that is not possible now."""
        ...


class BackgroundModel:
    """One model, loaded by ``start`` or by the first call that needs it.

    Args:
        name: what answers call it.
        load: gives an engine; runs in a thread.
    """

    def __init__(self, name: str, load: Callable[[], AnsweringEngine]) -> None:
        self.name = name
        self._load = load
        self._loading: Future[AnsweringEngine] | None = None

    def start(self) -> Future[AnsweringEngine]:
        """The engine as a future: of the load that is under way or done, or of a new one where the last has failed."""
        if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
            self._loading = in_background("florence2-mcp-load", self._load)
            self._loading.add_done_callback(_report_failure)
        return self._loading

    async def engine(self) -> AnsweringEngine:
        """The engine, once it is loaded.

        Raises:
            Florence2Error: it can't be loaded.
        """
        return await asyncio.wrap_future(self.start())

    async def prepare(self, prompts: Sequence[Prompt]) -> Sequence[Any]:
        """The prompts tokenized.

        Raises:
            PromptTooLong: one has more tokens than the model takes.
            Florence2Error: the model can't be loaded.
        """
        engine = await self.engine()
        return [engine.prepare(prompt) for prompt in prompts]

    async def answer(self, picture: Image, prompts: Sequence[Any], options: Mapping[str, Any]) -> list[Result]:
        """The results of prompts about one picture, in their order; whoever stops waiting takes them out of the engine.

        Raises:
            InvalidRequest: a prompt or option does not fit the picture or the model.
            EngineClosed: the engine has ended; the next call loads it again.
        """
        engine = await self.engine()
        job = in_background("florence2-mcp-ask", partial(engine.submit_many, picture, prompts, keep_image=False, **options))
        try:
            with cancelling_queued(job):
                return await results_of(await asyncio.wrap_future(job), "call again")
        except EngineClosed:
            if (
                self._loading is not None
                and self._loading.done()
                and self._loading.exception() is None
                and self._loading.result() is engine
            ):
                self._loading = None
            raise

    def close(self) -> bool:
        """End the engine, with all that it was asked. False: a load is under way, which can't be ended."""
        loading, self._loading = self._loading, None
        if loading is None:
            return True
        if not loading.done():
            return False
        with suppress(Exception):  # the load has failed, and was reported
            loading.result().close(cancel=True)
        return True


def _report_failure(loading: Future[AnsweringEngine]) -> None:
    if (error := loading.exception()) is not None:
        logger.error("the model can't be loaded, and calls of tools say so: %s", error)
