"""Loading of engines for the server: by its settings, warmed up, in this process or in the engine's, and stopped when the server ends.

Runs in threads. Knows nothing of requests or of which models are loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from florence2.engine_process.messages import LoadOptions
from florence2.engine_process.remote_engine import RemoteEngine
from florence2.engine_process.supervisor import EngineProcess
from florence2.errors import EngineClosed
from florence2.server.errors import Draining
from florence2.server.settings import Settings

if TYPE_CHECKING:
    from florence2.engine.engine import Engine
    from florence2.engine.loading import Loading


class EngineLoader:
    """Makes an engine of an alias, hub id or folder."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._under_way: set[Loading[Engine]] = set()
        self._is_stopped = False
        self._lock = threading.Lock()

    def __call__(self, source: str, adapters: Sequence[str] = ()) -> Engine:
        """The engine, warmed up by one answer if the settings say so.

        Raises:
            Draining, EngineClosed: the server ends.
        """
        from florence2.engine.engine import load_here
        from florence2.engine.loading import Loading
        from florence2.engine.warm_up import warm_up

        settings = self._settings
        work = partial(
            load_here,
            source,
            device=settings.device,
            precision=settings.precision,
            adapters=adapters,
            image_cache_bytes=settings.image_cache_bytes,
        )
        loading = Loading(work)
        with self._lock:
            if self._is_stopped:
                raise Draining
            self._under_way.add(loading)
        try:
            engine = loading.result()
        finally:
            self._under_way.discard(loading)
        if settings.warm_up:
            warm_up(engine)
        return engine

    def stop(self) -> None:
        """End all loadings and refuse further ones; does not wait."""
        with self._lock:
            self._is_stopped = True
            for loading in self._under_way:
                loading.stop()


class RemoteLoader:
    """Makes an engine of an alias, hub id or folder, in the engine's process.

    Args:
        settings: the server's.
        process: the engine's process.
    """

    def __init__(self, settings: Settings, process: EngineProcess) -> None:
        self._settings = settings
        self._process = process

    def __call__(self, source: str, adapters: Sequence[str] = ()) -> RemoteEngine:
        """The engine, warmed up by one answer if the settings say so.

        Raises:
            Draining: the server ends.
            EngineDied: the process has ended while it loaded the model, or several times before.
        """
        settings = self._settings
        options = LoadOptions(source, tuple(adapters), settings.device, settings.precision, settings.image_cache_bytes, settings.warm_up)
        try:
            return self._process.load(options)
        except EngineClosed:
            raise Draining from None


def make_engine_process(settings: Settings) -> EngineProcess:
    """The engine's process of a server, not started yet."""
    return EngineProcess(
        num_lanes=settings.image_threads, step_timeout_s=settings.engine_step_timeout_s, heartbeat_s=settings.engine_heartbeat_s
    )
