"""The models that a request may name, as this API lists them."""

from __future__ import annotations

import time
from typing import Any

from florence2.server.inference.models import Models
from florence2.weights.aliases import ALIASES

STARTED = int(time.time())
"""When the server started: no checkpoint says when it was made."""


def model_list(models: Models) -> dict[str, Any]:
    """All models that have a name here; where any hub id may be loaded, there are more."""
    return {"object": "list", "data": [model_entry(model_id) for model_id in models.known]}


def model_entry(model_id: str) -> dict[str, Any]:
    """One model.

    Args:
        model_id: its canonical id.
    """
    return {"id": model_id, "object": "model", "created": STARTED, "owned_by": _owner(model_id)}


def _owner(model_id: str) -> str:
    """Who publishes a model: the owner of its hub repository, where its name says so."""
    alias = ALIASES.get(model_id)
    repository = model_id if alias is None else alias.repository or ""
    return repository.partition("/")[0] if "/" in repository else "florence2" if alias is not None else "local"
