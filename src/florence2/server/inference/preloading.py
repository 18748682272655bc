"""The models that the settings name, loaded at the start, and again when the process that had them was started again.

Runs in the event loop as one task. Knows nothing of requests and routes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from florence2.engine_process.remote_engine import RemoteEngine
from florence2.engine_process.supervisor import EngineProcess
from florence2.errors import EngineDied, Florence2Error
from florence2.server.inference.adapters import computing_engine
from florence2.server.inference.answering_engine import AnyEngine
from florence2.server.inference.models import Models

logger = logging.getLogger(__name__)

MAX_TRIES = 3  # a process that ends so often in a row, before there ever was a model, never has one
LOOK_S = 0.05
AGAIN_S = 30.0  # until a model that could not be loaded again is tried once more
FAILURE = "a model could not be loaded"


class Preloading:
    """Loads models until it is cancelled.

    Args:
        models: the models.
        process: the process that they are loaded in; None: they are loaded in this one, or elsewhere.

    Attributes:
        failure: why the models named at the start are not there; None: they are, or are still being loaded.
        reason: the same in full, for whoever runs the server.
    """

    def __init__(self, models: Models, process: EngineProcess | None) -> None:
        self.failure: str | None = None
        self.reason: str | None = None
        self._models = models
        self._process = process

    async def run(self, on_ready: Callable[[], None], on_failure: Callable[[], None]) -> None:
        """Load the models, and go on as long as their process may end.

        Args:
            on_ready: called once they are loaded.
            on_failure: called when one of them can't be loaded at the start.
        """
        process, died = self._process, asyncio.Event()
        if process is not None:
            loop = asyncio.get_running_loop()
            process.on_death = lambda: loop.call_soon_threadsafe(self._forget, died)
            process.start()
        try:
            await self._first()
        except Florence2Error as error:
            self.failure, self.reason = FAILURE, self._reason(error)
            logger.critical("the server can't start: %s", self.reason)
            on_failure()
            return
        on_ready()
        logger.info("ready: %s", ", ".join(model.id for model in self._models.loaded))
        while process is not None:
            await died.wait()
            await self._again(process, died)

    def _reason(self, error: Florence2Error) -> str:
        """Why there is no model, for the log."""
        process = self._process
        if process is None or not isinstance(error, EngineDied):
            return error.__cause__.message if isinstance(error.__cause__, Florence2Error) else error.message
        return f"the engine's process ended {MAX_TRIES} times in a row, the last time because {process.last_failure}"

    async def _first(self) -> None:
        """Load the models for the first time; each try waits for a process of its own."""
        for _ in range(MAX_TRIES - 1):
            with suppress(EngineDied):
                await self._models.preload()
                return
        await self._models.preload()

    async def _again(self, process: EngineProcess, died: asyncio.Event) -> None:
        """Load them once more, as often as it takes."""
        while True:
            while not process.is_running:
                await asyncio.sleep(LOOK_S)
            died.clear()
            try:
                await self._models.preload()
            except EngineDied:
                continue
            except Florence2Error as error:
                self.failure = FAILURE
                logger.critical("not ready: %s; tried again in %g s", error.message, AGAIN_S)
                await asyncio.sleep(AGAIN_S)
            else:
                self.failure = None
                logger.info("ready again: %s", ", ".join(model.id for model in self._models.loaded))
                return

    def _forget(self, died: asyncio.Event) -> None:
        """Drop the models of a process that has ended."""
        self._models.forget(_is_lost)
        died.set()


def _is_lost(engine: AnyEngine) -> bool:
    """Whether the process that computes an engine's answers has ended."""
    computing = computing_engine(engine)
    return isinstance(computing, RemoteEngine) and computing.is_lost
