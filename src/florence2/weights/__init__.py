"""Checkpoints: from a name to a folder, from a folder to a model.

The only package that accesses the hub, the disk and safetensors. ``ALIASES`` is imported at once and all other names at their first use,
so that ``resolve`` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from florence2.weights.aliases import ALIASES, Alias

if TYPE_CHECKING:
    from florence2.weights.checkpoint import Checkpoint, read_checkpoint
    from florence2.weights.defaults import GenerationDefaults, ImageSettings
    from florence2.weights.load import load_model
    from florence2.weights.save import save_native
    from florence2.weights.source import resolve, resolve_adapter

__all__ = [
    "ALIASES",
    "Alias",
    "Checkpoint",
    "GenerationDefaults",
    "ImageSettings",
    "load_model",
    "read_checkpoint",
    "resolve",
    "resolve_adapter",
    "save_native",
]

_LAZY = {
    "Checkpoint": "checkpoint",
    "read_checkpoint": "checkpoint",
    "GenerationDefaults": "defaults",
    "ImageSettings": "defaults",
    "load_model": "load",
    "resolve": "source",
    "resolve_adapter": "source",
    "save_native": "save",
}


if not TYPE_CHECKING:  # hidden from type checkers, which would otherwise accept any name

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"florence2.weights.{_LAZY[name]}"), name)
