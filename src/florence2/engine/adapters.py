"""The LoRA adapters of an engine, by name, beside the weights of its model.

In: names and folders. Out: what a request needs to be answered by an adapter. Requests hold on to theirs, so an adapter that is removed
still answers those that name it already. Knows nothing of images, prompts or threads.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from florence2.engine.batch import Model
from florence2.engine.cuda_graphs import GraphedModel
from florence2.errors import InvalidOption
from florence2.model import Florence2
from florence2.model.adapters import ModelAdapter
from florence2.model.adapting import adapt_layers, fit_adapter
from florence2.tasks.prompt import shortened
from florence2.weights.checkpoint import Checkpoint
from florence2.weights.low_rank import read_factors
from florence2.weights.source import resolve_adapter

if TYPE_CHECKING:
    from florence2.engine.engine import Engine

logger = logging.getLogger(__name__)


class Adapters:
    """The adapters of one engine; safe to use from many threads.

    Args:
        checkpoint: of the base.
        model: the base.
    """

    def __init__(self, checkpoint: Checkpoint, model: Model) -> None:
        self._checkpoint = checkpoint
        self._model = model.plain if isinstance(model, GraphedModel) else model
        self._named: dict[str, ModelAdapter] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all adapters, in the order in which they were added."""
        return tuple(self._named)

    @property
    def num_bytes(self) -> int:
        """The memory that all of them take."""
        return sum(adapter.num_bytes for adapter in tuple(self._named.values()))

    def add(self, name: str, source: str | os.PathLike[str]) -> None:
        """Read an adapter, from a folder or the hub.

        Raises:
            InvalidOption: the name is taken, or no name.
            NeedsMerging: it is more than a low-rank update of linear layers.
            CheckpointError: it can't be read, or is of another model.
            ModelNotFound, DownloadError: it is not there, or can't be fetched.
        """
        if not isinstance(name, str) or not name:
            raise InvalidOption(f"the name of an adapter must be a text, got {shortened(name)}", field="adapter")
        self._check_free(name)
        if not isinstance(self._model, Florence2):
            raise InvalidOption("this engine's model takes no adapters", field="adapter")
        factors = read_factors(self._checkpoint, resolve_adapter(source if isinstance(source, str) else Path(source)))
        with self._lock:
            self._check_free(name)
            adapt_layers(self._model)
            self._named[name] = adapter = fit_adapter(self._model, factors)
        logger.info("adapter %s from %s: %.1f MB beside its base", name, source, adapter.num_bytes / 1e6)

    def remove(self, name: str) -> ModelAdapter:
        """The adapter of this name, which no further request can have.

        Raises:
            InvalidOption: there is no such adapter.
        """
        with self._lock:
            if name not in self._named:
                raise self._unknown(name)
            return self._named.pop(name)

    def find(self, name: str | None) -> ModelAdapter | None:
        """The adapter of this name; None for the base, which has none.

        Raises:
            InvalidOption: there is no such adapter.
        """
        if name is None:
            return None
        adapter = self._named.get(name) if isinstance(name, str) else None
        if adapter is None:
            raise self._unknown(name)
        return adapter

    def _check_free(self, name: str) -> None:
        if name in self._named:
            raise InvalidOption(f"there is an adapter {name!r} already: remove it first, or take another name", field="adapter")

    def _unknown(self, name: object) -> InvalidOption:
        there = f"this engine has {', '.join(self._named)}" if self._named else "this engine has none (Engine.add_adapter adds them)"
        return InvalidOption(f"there is no adapter {shortened(name)}: {there}", field="adapter")


# Methods of ``Engine``.


def add_adapter(self: Engine, name: str, source: str | os.PathLike[str]) -> None:
    """Add a LoRA adapter beside the model's weights, which requests then name: ``adapter="…"``.

    The base's weights stay as they are and are in memory once; requests of the base and of all adapters take steps together.

    Args:
        self: the engine.
        name: what requests call it.
        source: a folder, or a hub id, which may end in ``@revision``.

    Raises:
        NeedsMerging: it changes more than linear layers: load it merged (``load(…, adapters=[…])``).
        CheckpointError: it can't be read, or was trained on another base.
        ModelNotFound, DownloadError: it is not there, or can't be fetched.
        InvalidOption: the name is taken, or no name.
    """
    self._adapters.add(name, source)


def remove_adapter(self: Engine, name: str) -> None:
    """Take no more requests for an adapter; those that it has are answered, and then its memory is free.

    Raises:
        InvalidOption: there is no such adapter.
    """
    self._maker.images.forget(self._adapters.remove(name))


def list_adapters(self: Engine) -> tuple[str, ...]:
    """The names of the engine's adapters."""
    return self._adapters.names
