"""Loading of engines for the server: by its settings, warmed up, and stopped when the server ends.

Runs in threads. Knows nothing of requests or of which models are loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

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
        from PIL import Image

        from florence2.engine.engine import load_here
        from florence2.engine.loading import Loading

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
            engine.run(Image.new("RGB", (64, 48)), "<CAPTION>", max_new_tokens=4)
        return engine

    def stop(self) -> None:
        """End all loadings and refuse further ones; does not wait."""
        with self._lock:
            self._is_stopped = True
            for loading in self._under_way:
                loading.stop()
