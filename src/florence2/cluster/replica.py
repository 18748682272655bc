"""A replica with engines: the half of the server that has the models, without HTTP.

In: prompts about an image file, from an ingress. Out: results, events, errors. Models are loaded, kept and dropped, images decoded and
requests queued as on one machine; the engine computes in a process of its own, so that what kills it does not end the replica. What it
has to do and which models it holds is told to Ray Serve, which routes and scales by that. Knows nothing of how.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from itertools import count
from typing import Any

from prometheus_client.core import Metric
from ray import serve

from florence2.cluster.config import ClusterConfig
from florence2.cluster.engine_health import EngineHealth
from florence2.cluster.everywhere import labelled
from florence2.cluster.figures import Figures
from florence2.cluster.messages import Asked, Happened, Reply
from florence2.cluster.routing import AT_START, BASES, IS_UP
from florence2.cluster.rows_asked import RowsAsked
from florence2.cluster.scaling import REQUESTS, ROWS
from florence2.engine_process.messages import Failure, ModelFacts
from florence2.engine_process.remote_engine import RemoteEngine
from florence2.errors import Florence2Error, InvalidRequest
from florence2.image_files import Structure
from florence2.server.app import api_ids_of
from florence2.server.http.gauges import measured_engines
from florence2.server.http.logs import set_up
from florence2.server.inference.adapters import computing_engine
from florence2.server.inference.events import ImageEvent, Queued
from florence2.server.inference.loading import RemoteLoader, make_engine_process
from florence2.server.inference.model_names import name_models
from florence2.server.inference.models import Models
from florence2.server.inference.preloading import Preloading
from florence2.server.inference.request import InferenceRequest, Outcome
from florence2.server.inference.service import InferenceService

logger = logging.getLogger(__name__)

TOLD_EACH_S = 1.0
TOLD_AGAIN = 10  # times


class ReplicaFailed(Exception):
    """A replica can't begin; its message is for whoever runs the cluster."""


class Engines:
    """One replica; it takes requests once the models that the settings name are loaded.

    Args:
        config: the cluster's.

    Raises:
        ReplicaFailed: a model can't be loaded.
    """

    async def __init__(self, config: ClusterConfig) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        settings = config.engine_settings
        set_up(settings.log_level, settings.log_json)
        self._process = make_engine_process(settings)
        api_ids = api_ids_of(settings)
        self._holds_all = len(name_models(settings.model, settings.models, api_ids)) <= config.engines.models_per_replica
        self._models = Models(settings, RemoteLoader(settings, self._process), does_preload=self._holds_all, api_ids=api_ids)
        self._inference = InferenceService(settings, self._models)
        self._preloading = Preloading(self._models, self._process)
        is_ready = asyncio.Event()
        self._loading = asyncio.create_task(self._preloading.run(is_ready.set, is_ready.set))
        await is_ready.wait()
        if self._preloading.failure is not None:
            raise ReplicaFailed(self._preloading.reason)
        self._rows = RowsAsked()
        self._health = EngineHealth(self._process, self._models)
        self._figures = Figures(self._models, self._process, self._rows)
        self._noting: dict[str, asyncio.Task[Any]] = {}
        for model_id in self._models.at_start if self._holds_all else ():
            self._note_use(model_id)  # Serve's own routing passes over replicas that have not said so
        self._telling = asyncio.create_task(self._tell())

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
        self._note_use(asked.model_id)
        try:
            with self._rows.of(self._num_rows(asked)) as add_pictures:
                return _results_of(await self._inference.answer(_request(asked, add_pictures)))
        except Florence2Error as error:
            return Failure.of(error)

    async def stream(self, asked: Asked) -> AsyncGenerator[Happened | Queued | Reply, None]:
        """What becomes known of the answers, and at last the results."""
        self._note_use(asked.model_id)
        try:
            with self._rows.of(self._num_rows(asked)) as add_pictures:
                async with aclosing(self._inference.stream(_request(asked, add_pictures))) as happenings:
                    async for happening in happenings:
                        if isinstance(happening, ImageEvent):
                            yield Happened(happening.image_size, happening.event)
                        elif isinstance(happening, Outcome):
                            yield _results_of(happening)
                        elif isinstance(happening, Queued):
                            yield happening
        except Florence2Error as error:
            yield Failure.of(error)

    @serve.multiplexed(max_num_models_per_replica=-1)  # which models leave is decided in one place, by number and by memory
    async def hold(self, model_id: str) -> str:
        """The model's id once it is loaded; Ray Serve tells it to those who route when loading begins."""
        await self._models.get(model_id)
        return model_id

    def measured(self) -> list[Metric]:
        """What this replica has to say under ``/metrics``."""
        return labelled(measured_engines(self._models, self._process), serve.get_replica_context().replica_id.unique_id)

    def record_replica_metadata(self) -> dict[str, Any]:
        """What those who route have to know of every replica."""
        return {AT_START: self._models.at_start if self._holds_all else [], BASES: self._models.bases}

    def record_routing_stats(self) -> dict[str, bool]:
        """What those who route have to know of this replica now."""
        return {IS_UP: self._process.is_running}

    def record_autoscaling_stats(self) -> dict[str, float]:
        """By what replicas come and go."""
        return {ROWS: self._rows.num_rows, REQUESTS: self._rows.num_requests}

    def check_health(self) -> None:
        """Raise an error if this replica is to be replaced."""
        self._health.check()

    async def __del__(self) -> None:
        """End everything; Ray Serve calls it when no request is left."""
        self._loading.cancel()
        self._telling.cancel()
        await self._models.close(cancel=True)
        await asyncio.to_thread(self._process.stop)
        self._inference.close()

    def _num_rows(self, asked: Asked) -> int:
        """The rows of a request, as long as its image is not in tiles."""
        return len(asked.prompts) * self._models.num_beams(asked.model_id, asked.options.get("num_beams"))

    def _note_use(self, model_id: str) -> None:
        """Have Ray Serve know that the model is, or will be, here; the request waits for it by itself, and no longer than it wants."""
        if model_id not in self._noting and model_id not in _held_by(self):
            task = self._noting[model_id] = asyncio.create_task(self.hold(model_id))  # type: ignore[operator]
            task.add_done_callback(lambda done: (self._noting.pop(model_id), done.cancelled() or done.exception()))

    async def _tell(self) -> None:
        """Keep what others know of this replica true."""
        for number in count():
            try:
                self._health.look()
                _drop_from(self, {model.id for model in self._models.loaded})
                self._figures.show()
                if number < TOLD_AGAIN:
                    _tell_again(self)
            except Exception:
                logger.exception("what the replica does could not be told")
            await asyncio.sleep(TOLD_EACH_S)


def _held_by(replica: Engines) -> dict[str, str]:
    """The models that Ray Serve takes to be at a replica, which has no public name for them."""
    wrapper = getattr(replica, "__serve_multiplex_wrapper", None)
    return {} if wrapper is None else wrapper.models


def _drop_from(replica: Engines, held: set[str]) -> None:
    """Have Ray Serve know that the other models are not at a replica any more."""
    known = _held_by(replica)
    for model_id in [one for one in known if one not in held]:
        del known[model_id]
        replica.__dict__["__serve_multiplex_wrapper"]._push_multiplexed_replica_info = True


def _tell_again(replica: Engines) -> None:
    """Have Ray Serve know once more which models are here: what a replica says before Serve counts it as running may be lost."""
    if (wrapper := getattr(replica, "__serve_multiplex_wrapper", None)) is not None:
        wrapper._push_multiplexed_replica_info = True


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


def _request(asked: Asked, add_pictures: Callable[[int], None]) -> InferenceRequest:
    values: dict[str, Any] = {"reserve": add_pictures, "key_name": asked.key_name, "auto_orient": asked.auto_orient, "tiles": asked.tiles}
    return InferenceRequest(asked.model_id, [_SentFile(asked.file)], asked.prompts, asked.options, **values)


def _results_of(outcome: Outcome) -> Reply:
    (answer,) = outcome.answers
    if isinstance(answer, InvalidRequest):
        return Failure.of(answer)
    return answer.results
