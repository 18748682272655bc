"""Which models leave: for lack of memory or of places, or because nobody has used them for long.

In: the loaded models, with the memory that their engines report. Out: those that have to go, and an error where those that stay leave no
room. The least recently used go first, before them those without requests in flight; what the settings name stays. Closes nothing itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from florence2.errors import DownloadError, MissingExtra, OutOfMemory
from florence2.server.inference.adapters import computing_engine
from florence2.server.settings import Settings
from florence2.usable_memory import usable_memory
from florence2.weights.aliases import ALIASES

if TYPE_CHECKING:
    from florence2.server.inference.answering_engine import AnyEngine

logger = logging.getLogger(__name__)

DEFAULT_SHARE = 0.6
"""Of the memory that the process may use: the rest is for pictures that are decoded, the passes of the engines, and loading itself."""
_WEIGHTS = (".safetensors", ".bin")


@dataclass
class LoadedModel:
    """A model that is ready.

    Attributes:
        id: the canonical id.
        engine: what answers.
        load_s: how long loading took.
        listed_as: the name that the registry shows: the one under which a client last added it.
        used_at: when a request last used it, by the monotonic clock.
    """

    id: str
    engine: AnyEngine
    load_s: float
    listed_as: str
    used_at: float = field(default_factory=time.monotonic)


class ModelRoom:
    """Decides by the settings.

    Args:
        settings: of the server.
        pinned: the ids of the models that stay.
        clock: seconds, as ``LoadedModel.used_at``.
    """

    def __init__(self, settings: Settings, pinned: Collection[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._most_models = settings.max_loaded_models
        self._idle_s = settings.model_idle_s
        self._pinned = frozenset(pinned)
        self._clock = clock
        usable = usable_memory()
        by_default = None if usable is None or settings.device not in ("auto", "cpu") else int(usable * DEFAULT_SHARE)
        self.max_bytes = int(settings.max_model_bytes) if settings.max_model_bytes is not None else by_default

    @property
    def look_again_s(self) -> float:
        """How often to look for models that are too large together, or that nobody uses."""
        return min(max(self._idle_s / 4, 0.05), 15.0) if self._idle_s else 15.0

    def too_many(self, loaded: Sequence[LoadedModel], newest: LoadedModel | None = None, needed_bytes: int = 0) -> list[LoadedModel]:
        """The models that have to leave so that the others fit.

        Args:
            loaded: the loaded models.
            newest: one that stays, whatever its size.
            needed_bytes: memory for one that is to come.
        """
        whole = [model for model in loaded if computing_engine(model.engine) is model.engine]
        sizes = {model.id: memory_of(model) for model in whole}
        num_left, bytes_left, leaving = len(whole), sum(sizes.values()) + needed_bytes, []
        for model in sorted((one for one in whole if self._may_leave(one, loaded) and one is not newest), key=_usefulness):
            if num_left <= self._most_models and (self.max_bytes is None or bytes_left <= self.max_bytes):
                break
            leaving.append(model)
            num_left, bytes_left = num_left - 1, bytes_left - sizes[model.id]
        return leaving

    def idle(self, loaded: Sequence[LoadedModel]) -> list[LoadedModel]:
        """The models that nobody has used for ``model_idle_s``."""
        if not self._idle_s:
            return []
        since = self._clock() - self._idle_s
        return [model for model in loaded if self._may_leave(model, loaded) and model.used_at <= since and not _is_busy(model)]

    def check(self, model_id: str, needed_bytes: int, loaded: Sequence[LoadedModel]) -> None:
        """Refuse a model for which those that stay leave no room.

        Raises:
            OutOfMemory: so it is.
        """
        if self.max_bytes is None or model_id in self._pinned:
            return
        staying = sum(memory_of(model) for model in loaded if computing_engine(model.engine) is model.engine and model.id in self._pinned)
        if staying + needed_bytes > self.max_bytes:
            raise OutOfMemory(
                f"there is no room for {model_id}: it needs at least {needed_bytes / 1e9:.2f} GB, and of the {self.max_bytes / 1e9:.2f} GB "
                f"for models (setting max_model_bytes) {staying / 1e9:.2f} are taken by models that stay"
            )

    def _may_leave(self, model: LoadedModel, loaded: Sequence[LoadedModel]) -> bool:
        """Neither it nor a model that shares its weights has to stay."""
        return not any(one.id in self._pinned and computing_engine(one.engine) is computing_engine(model.engine) for one in loaded)


def memory_of(model: LoadedModel) -> int:
    """The memory that a model's engine reports."""
    return model.engine.stats().memory_bytes


def _is_busy(model: LoadedModel) -> bool:
    stats = model.engine.stats()
    return stats.num_running + stats.num_waiting > 0


def _usefulness(model: LoadedModel) -> tuple[bool, float]:
    return _is_busy(model), model.used_at


def weight_bytes(source: str) -> int:
    """The size of a checkpoint's weights on this disk, which it takes in memory at least; 0 where it is not here yet."""
    folder = Path(source)
    if not folder.is_dir():
        cached = _cached(source)
        if cached is None:
            return 0
        folder = cached
    try:
        sizes = {kind: sum(file.stat().st_size for file in folder.glob(f"*{kind}")) for kind in _WEIGHTS}
    except OSError:
        return 0
    return next((size for size in sizes.values() if size), 0)  # a folder with both holds the same twice


def _cached(source: str) -> Path | None:
    """The folder of a hub's model in the cache; None where it is not there."""
    stem, _, revision = source.partition("@")
    repository = ALIASES[stem].repository if stem in ALIASES else stem
    if repository is None or "/" not in repository:
        return None
    try:
        from florence2.weights import hub

        return hub.cached(repository, revision or None)
    except (DownloadError, MissingExtra, OSError, ValueError):
        return None
