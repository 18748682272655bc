"""A replica with engines: the half of the server that has the models, without HTTP.

In: prompts about an image file, from an ingress. Out: results, events, errors. Models are loaded, kept and dropped, images decoded and
requests queued as on one machine; the engine computes in a process of its own, so that what kills it does not end the replica. Knows
nothing of routing and scaling.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from florence2.cluster.config import ClusterConfig
from florence2.cluster.messages import Asked, Happened, Reply
from florence2.engine_process.messages import Failure, ModelFacts
from florence2.engine_process.remote_engine import RemoteEngine
from florence2.errors import Florence2Error, InvalidRequest
from florence2.image_files import Structure
from florence2.server.app import api_ids_of
from florence2.server.inference.adapters import computing_engine
from florence2.server.inference.events import ImageEvent, Queued
from florence2.server.inference.loading import RemoteLoader, make_engine_process
from florence2.server.inference.model_names import name_models
from florence2.server.inference.models import Models
from florence2.server.inference.preloading import Preloading
from florence2.server.inference.request import InferenceRequest, Outcome
from florence2.server.inference.service import InferenceService

logger = logging.getLogger(__name__)


class Engines:
    """One replica; it takes requests once the models that the settings name are loaded.

    Args:
        config: the cluster's.

    Raises:
        RuntimeError: a model can't be loaded; the log says why.
    """

    async def __init__(self, config: ClusterConfig) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        settings = config.engine_settings
        self._process = make_engine_process(settings)
        api_ids = api_ids_of(settings)
        does_preload = len(name_models(settings.model, settings.models, api_ids)) <= config.engines.models_per_replica
        self._models = Models(settings, RemoteLoader(settings, self._process), does_preload=does_preload, api_ids=api_ids)
        self._inference = InferenceService(settings, self._models)
        self._preloading = Preloading(self._models, self._process)
        is_ready = asyncio.Event()
        self._loading = asyncio.create_task(self._preloading.run(is_ready.set, is_ready.set))
        await is_ready.wait()
        if self._preloading.failure is not None:
            raise RuntimeError(self._preloading.failure)

    async def facts(self, model_id: str) -> ModelFacts | Failure:
        """What an ingress has to know of a model, which is loaded for it."""
        try:
            model, _ = await self._models.get(model_id)
        except Florence2Error as error:
            return Failure.of(error)
        engine = computing_engine(model.engine)
        assert isinstance(engine, RemoteEngine)
        return engine.facts

    async def answer(self, asked: Asked) -> Reply:
        """The results of the prompts about an image."""
        try:
            return _results_of(await self._inference.answer(_request(asked)))
        except Florence2Error as error:
            return Failure.of(error)

    async def stream(self, asked: Asked) -> AsyncGenerator[Happened | Queued | Reply, None]:
        """What becomes known of the answers, and at last the results."""
        try:
            async with aclosing(self._inference.stream(_request(asked))) as happenings:
                async for happening in happenings:
                    if isinstance(happening, ImageEvent):
                        yield Happened(happening.image_size, happening.event)
                    elif isinstance(happening, Outcome):
                        yield _results_of(happening)
                    elif isinstance(happening, Queued):
                        yield happening
        except Florence2Error as error:
            yield Failure.of(error)

    async def __del__(self) -> None:
        """End everything; Ray Serve calls it when no request is left."""
        self._loading.cancel()
        await self._models.close(cancel=True)
        await asyncio.to_thread(self._process.stop)
        self._inference.close()


class _SentFile:
    """An image file that an ingress has read."""

    label = "cluster"

    def __init__(self, file: Structure) -> None:
        self._file = file

    async def fetch(self) -> None:
        """Nothing: it is here."""

    def read(self, fetched: object) -> Structure:
        """The file."""
        return self._file

    def describe(self, error: InvalidRequest) -> InvalidRequest:
        """The error as it is: the ingress knows the field."""
        return error


def _request(asked: Asked) -> InferenceRequest:
    values: dict[str, Any] = {"key_name": asked.key_name, "auto_orient": asked.auto_orient, "tiles": asked.tiles}
    return InferenceRequest(asked.model_id, [_SentFile(asked.file)], asked.prompts, asked.options, **values)


def _results_of(outcome: Outcome) -> Reply:
    (answer,) = outcome.answers
    if isinstance(answer, InvalidRequest):
        return Failure.of(answer)
    return answer.results
