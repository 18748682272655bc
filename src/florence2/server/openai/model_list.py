"""The models that a request may name, as this API lists them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from florence2.server.inference.models import Models
from florence2.server.openai.schemas import ModelEntry, ModelList
from florence2.weights.aliases import ALIASES

STARTED = int(time.time())
"""When the server started: no checkpoint says when it was made."""


def model_list(models: Models, model_ids: Iterable[str]) -> ModelList:
    """The models of these ids."""
    return ModelList(data=[model_entry(models, model_id) for model_id in model_ids])


def model_entry(models: Models, name: str) -> ModelEntry:
    """One model.

    Args:
        models: the server's.
        name: any of its names.

    Raises:
        ModelNotFound: no such model here.
    """
    model_id = models.canonical(name)
    return ModelEntry(id=model_id, created=STARTED, owned_by=_owner(models.source(model_id)))


def _owner(source: str) -> str:
    """Who publishes a model: the owner of its hub repository, this project, or for a folder whoever runs the server."""
    alias = ALIASES.get(source.partition("@")[0])
    if alias is not None:
        return (alias.repository or "florence2").partition("/")[0]
    owner, slash, _ = source.partition("/")
    return owner if slash and owner and not Path(source).expanduser().exists() else "local"
