"""The loaded models, each once, under one id.

``canonical`` maps all names of a model to one id, and refuses what may not be loaded; ``get`` loads a model at its first use, once for all
waiting callers. Each loading runs in a thread of its own, everything else in the event loop. Knows nothing of requests or HTTP.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from florence2.background import in_thread
from florence2.errors import DownloadError, EngineDied, Florence2Error, MissingExtra, ModelNotFound
from florence2.request_options import MAX_BEAMS
from florence2.server.errors import Draining, ModelFailed, ModelLoading
from florence2.server.inference.adapters import add_over, computing_engine
from florence2.server.inference.answering_engine import AnsweringEngine, AnyEngine, FileEngine
from florence2.server.inference.fatal_loads import FatalLoads
from florence2.server.inference.load_times import LoadTimes
from florence2.server.inference.model_names import NO_IDS, find_bases, name_adapters, name_models
from florence2.server.inference.model_room import LoadedModel, ModelRoom, weight_bytes
from florence2.server.settings import Settings
from florence2.weights.aliases import ALIASES

logger = logging.getLogger(__name__)

MAX_FREE_LOADS = 4  # at once, of models that neither settings nor aliases name
CLOSE_S = 2.0  # longest wait for engines at the end

MAX_ID_CHARS = 256
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")


Loader = Callable[..., AnsweringEngine]
"""Makes an engine of a source; adapters to be merged are passed as ``adapters``."""

EngineFinder = Callable[[str], FileEngine]
"""Finds the engine of a model by its canonical id, where others load the models."""


class Models:
    """The models of one server. Everything but the loader runs in the event loop.

    Args:
        settings: which models there are.
        loader: makes an engine of a source; or ``find_engine`` finds those that others have made.
        api_ids: further ids by which APIs know models, each with the alias that it means.
        stop_loading: ends what the loader is doing.
        find_engine: finds an engine by the model's id, adapters included. It runs in threads.
        does_preload: load the models that the settings name before they are asked for.

    Raises:
        InvalidOption: two models have one name, or an adapter belongs to none.
    """

    def __init__(
        self,
        settings: Settings,
        loader: Loader | None,
        *,
        find_engine: EngineFinder | None = None,
        does_preload: bool = True,
        api_ids: Mapping[str, str] = NO_IDS,
        stop_loading: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._api_ids = api_ids
        self._loader, self._find_engine = loader, find_engine
        self._stop_loading = stop_loading
        self._load_times = LoadTimes()
        self._fatal = FatalLoads()
        at_start = name_models(settings.model, settings.models, api_ids)
        self._named, self._over = find_bases({**settings.models, **at_start}, api_ids)
        self._pinned = list(at_start)
        self._adapters = name_adapters(settings.adapter, at_start)
        self._loaded: dict[str, LoadedModel] = {}
        self._loading: dict[str, asyncio.Task[LoadedModel]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._room = ModelRoom(settings, self._pinned)
        self._watch: asyncio.Task[None] | None = None
        self._does_preload = does_preload
        self._is_preloaded = not self._pinned
        self._is_closed = False

    @property
    def loaded(self) -> list[LoadedModel]:
        """The models that are ready, in the order of loading."""
        return list(self._loaded.values())

    @property
    def at_start(self) -> list[str]:
        """The ids of the models that the settings name, in their order."""
        return list(self._pinned)

    @property
    def bases(self) -> dict[str, str]:
        """The ids of the models that are adapters, each with the id of the model whose weights it shares."""
        return {model_id: over.base for model_id, over in self._over.items()}

    @property
    def is_preloaded(self) -> bool:
        """Whether all models named in the settings have been loaded."""
        return self._is_preloaded

    @property
    def known(self) -> list[str]:
        """The canonical ids that a request may name."""
        return list(dict.fromkeys([*self._pinned, *self._named, *(ALIASES if self._settings.loadable != "named" else ())]))

    def canonical(self, name: str) -> str:
        """The one id of the model that ``name`` means.

        Raises:
            ModelNotFound: no such model here, or not one that a request may load.
        """
        whole, name = name, name.strip("/")
        for candidate in (whole, name, self._api_ids.get(name)):
            if candidate in self._named or (candidate in ALIASES and self._settings.loadable != "named"):
                return candidate
        stem, _, revision = name.partition("@")
        is_free = self._settings.loadable == "any" and len(name) <= MAX_ID_CHARS and (stem in ALIASES or _HUB_ID.fullmatch(stem))
        if is_free and (not revision or _REVISION.fullmatch(revision)) and not Path(name).exists():
            return name
        raise ModelNotFound(self._unknown(name), field="model_id")

    def source(self, model_id: str) -> str:
        """What a model is loaded from: an alias, hub id or folder; of an adapter over another model, the adapter's own."""
        over = self._over.get(model_id)
        return self._named.get(model_id, model_id) if over is None else over.adapter

    def aliases(self, model_id: str) -> list[str]:
        """The other names of a model."""
        return [name for name, target in self._api_ids.items() if target == model_id and name not in self._named]

    def num_beams(self, model_id: str, requested: int | None) -> int:
        """The number of beams that a request searches with.

        Args:
            model_id: the canonical id of its model.
            requested: the request's own number; None: the model's default, or 1 as long as the model is not loaded.
        """
        model = self._loaded.get(model_id)
        default = 1 if model is None else model.engine.num_beams
        return default if requested is None else min(max(requested, 1), MAX_BEAMS)

    async def get(self, name: str, wait_s: float | None = None) -> tuple[LoadedModel, bool]:
        """The model of this name, loaded if needed, and whether this call had to wait for the loading.

        Args:
            name: any of its names.
            wait_s: the longest to wait; loading goes on beyond it. None: as long as it takes.

        Raises:
            ModelNotFound: no such model.
            ModelLoading: it is not ready yet.
            ModelFailed: it is known but can't be loaded; the next call tries again.
            Draining: the server is ending.
        """
        model_id = self.canonical(name)
        if self._is_closed:
            raise Draining
        if (model := self._loaded.get(model_id)) is not None:
            self._note_use(model)
            return model, False
        task = self._loading.get(model_id)
        if task is None:
            self._check_loads(model_id)
            task = self._loading[model_id] = asyncio.create_task(self._load(model_id))
            task.add_done_callback(lambda done: self._forget(model_id, done))
        # Not awaited itself: a caller that is cancelled must not cancel the loading that others wait for.
        done, _ = await asyncio.wait({task}, timeout=wait_s)
        if not done:
            raise ModelLoading(f"the model {model_id} is being loaded; send the request again", self._load_times.seconds_left(model_id))
        return task.result(), True

    async def add(self, name: str) -> None:
        """Load a model, and list it under this name."""
        model, _ = await self.get(name)
        model.listed_as = name.strip("/")

    def remove(self, name: str) -> None:
        """Drop a model once its requests are answered; nothing happens if it is not loaded or not known."""
        try:
            model = self._loaded.pop(self.canonical(name), None)
        except ModelNotFound:
            return
        if model is not None:
            for over in self._over_engine_of(model):
                self.remove(over.id)
            self._close(model)

    def discard(self, model: LoadedModel) -> None:
        """Forget a model whose engine has closed by itself, and all that share it, so that the next request loads them anew."""
        engine = computing_engine(model.engine)
        if self._loaded.get(model.id) is model:
            self._loaded = {one.id: one for one in self.loaded if computing_engine(one.engine) is not engine}

    def clear(self) -> None:
        """Drop all models."""
        for model_id in list(self._loaded):
            self.remove(model_id)

    def forget(self, is_lost: Callable[[AnyEngine], bool]) -> None:
        """Forget all models whose engines are lost, adapters over them too; ``preload`` loads those again that the settings name."""
        self._loaded = {model_id: model for model_id, model in self._loaded.items() if not is_lost(computing_engine(model.engine))}
        self._is_preloaded = not self._does_preload or all(model_id in self._loaded for model_id in self._pinned)

    async def preload(self) -> None:
        """Load what the settings name, one after the other."""
        for model_id in self._pinned if self._does_preload else ():
            await self.get(model_id)
        self._is_preloaded = True

    def adopt(self, engine: AnsweringEngine) -> None:
        """Use an engine that exists already for the models that the settings name, but for adapters over others, which it is given."""
        whole = [model_id for model_id in self._pinned if model_id not in self._over]
        self._loaded = {model_id: LoadedModel(model_id, engine, 0.0, listed_as=model_id) for model_id in whole}
        self._is_preloaded = True

    async def close(self, *, cancel: bool) -> None:
        """Close all engines, and wait for each but one that hangs.

        Args:
            cancel: cancel the requests that they have not answered yet.
        """
        self._is_closed = True
        self._stop_loading()
        for task in filter(None, (*self._loading.values(), self._watch)):
            task.cancel()
        for model in self._loaded.values():
            self._close(model, cancel=cancel)
        self._loaded = {}
        if self._closing and (await asyncio.wait(self._closing, timeout=CLOSE_S))[1]:
            logger.warning("an engine did not end within %g s and is left behind", CLOSE_S)

    async def _load(self, model_id: str) -> LoadedModel:
        started = time.perf_counter()
        if model_id not in self._pinned:  # without those there is no server: they are tried as often as the process is started
            self._fatal.check(model_id)
        self._load_times.begin(model_id)
        source, over = self.source(model_id), self._over.get(model_id)
        adapters = self._adapters.get(model_id)
        merged = f" over {over.base}" if over else f" with {', '.join(adapters)}" if adapters else ""
        if over is None and self._find_engine is None:
            await self._make_room(model_id)
        logger.info("loading %s%s%s", model_id, "" if source == model_id else f" from {source}", merged)
        try:
            engine = await self._engine_of(model_id)
        except Exception as error:
            is_known = isinstance(error, Florence2Error)
            if isinstance(error, EngineDied) and error.has_ended_loading:
                self._fatal.note_death(model_id)
            if isinstance(error, EngineDied | Draining):
                raise
            logger.error("loading %s failed: %s", model_id, error, exc_info=None if is_known else error)
            if isinstance(error, DownloadError):  # its message may name folders of this machine
                raise DownloadError(f"{model_id} can't be downloaded at present; the server's log says why") from error
            if is_known and not isinstance(error, MissingExtra) and error.status != 500 and self._is_free(model_id):
                raise
            raise ModelFailed(f"{model_id} can't be loaded: {error}") from error
        model = LoadedModel(model_id, engine, time.perf_counter() - started, listed_as=model_id)
        self._load_times.end(model_id)
        self._fatal.note_loaded(model_id)
        self._loaded[model_id] = model
        logger.info("loaded %s in %.1f s", model_id, model.load_s)
        self._drop(self._room.too_many(self.loaded, newest=model), f"no room beside {model_id}")
        self._watch = self._watch or asyncio.create_task(self._look_after())
        return model

    async def _engine_of(self, model_id: str) -> AnyEngine:
        """The engine of a model: that of its base where it is an adapter over one, which is loaded first if needed."""
        if self._find_engine is not None:
            return await in_thread("florence2-loader", partial(self._find_engine, model_id))
        over = self._over.get(model_id)
        if over is None:
            return await in_thread("florence2-loader", self._load_whole(model_id, ()))
        base, _ = await self.get(over.base)
        assert not isinstance(base.engine, FileEngine)
        merged = self._load_whole(over.base, [over.adapter])
        return await in_thread("florence2-loader", partial(add_over, base.engine, model_id, over.adapter, merged))

    def _load_whole(self, model_id: str, more: Sequence[str]) -> Callable[[], AnsweringEngine]:
        """What loads a model with weights of its own, its adapters and ``more`` merged into them."""
        adapters = [*self._adapters.get(model_id, ()), *more]
        assert self._loader is not None
        return partial(self._loader, self.source(model_id), **({"adapters": adapters} if adapters else {}))

    def _over_engine_of(self, model: LoadedModel) -> list[LoadedModel]:
        """The loaded adapters that share a model's engine."""
        return [one for one in self.loaded if one is not model and computing_engine(one.engine) is model.engine]

    def _note_use(self, model: LoadedModel) -> None:
        """Note that a model is used now, and so is the one whose weights it shares."""
        engine = computing_engine(model.engine)
        for one in self.loaded:
            if one is model or one.engine is engine:
                one.used_at = time.monotonic()

    def _check_loads(self, model_id: str) -> None:
        """Limit the loadings by hub id at a time: there are any number of ids, and each loading may hang.

        Raises:
            ModelLoading: as many are in progress already.
        """
        if model_id in self._named or model_id in ALIASES:
            return
        others = [one for one in self._loading if one not in self._named and one not in ALIASES]
        if len(others) >= MAX_FREE_LOADS:
            raise ModelLoading(f"{len(others)} other models are being loaded, and no more are at once; send the request again")

    def _is_free(self, model_id: str) -> bool:
        """Whether a client chose the model, so that a wrong choice is the client's mistake."""
        return model_id not in self._named

    def _drop(self, models: Sequence[LoadedModel], reason: str) -> None:
        """Remove models; they answer what they have been asked."""
        for model in models:
            logger.info("dropping %s: %s", model.id, reason)
            self.remove(model.id)

    async def _make_room(self, model_id: str) -> None:
        """Drop what has to leave before a model is loaded.

        Raises:
            OutOfMemory: those that stay leave no room for it.
        """
        needed_bytes = await asyncio.to_thread(weight_bytes, self.source(model_id))
        self._room.check(model_id, needed_bytes, self.loaded)
        self._drop(self._room.too_many(self.loaded, needed_bytes=needed_bytes), f"no room for {model_id} beside it")
        if self._closing:  # their memory is free once they have answered
            await asyncio.wait(self._closing, timeout=CLOSE_S)

    async def _look_after(self) -> None:
        """Drop, now and then, what nobody uses, and what no longer fits because engines grow while they work."""
        while True:
            await asyncio.sleep(self._room.look_again_s)
            self._drop(self._room.idle(self.loaded), f"nobody has used it for {self._settings.model_idle_s:g} s")
            self._drop(self._room.too_many(self.loaded), "no room for all models")

    def _close(self, model: LoadedModel, *, cancel: bool = False) -> None:
        """Close a model's engine in a thread, once it has answered its requests or cancelled them."""
        task = asyncio.create_task(in_thread("florence2-closer", partial(model.engine.close, cancel=cancel)))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _forget(self, model_id: str, task: asyncio.Task[LoadedModel]) -> None:
        self._loading.pop(model_id, None)
        if not task.cancelled():
            task.exception()  # retrieved, even if no caller waits any more

    def _unknown(self, name: str) -> str:
        names = [*self.known, *(alias for alias, target in self._api_ids.items() if target in self.known)]
        close = difflib.get_close_matches(name.lower().rpartition("/")[2], self.known, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]}?" if close else ""
        return f"Unknown model {name[:200]!r}.{hint} This server has: {', '.join(names)}."
