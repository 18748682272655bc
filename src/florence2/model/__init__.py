"""The model: PyTorch modules only, without files and network.

``florence2.model.config`` is plain values: it does not import torch. All names are imported at their first use, so that a process that
reads a checkpoint's settings need not have torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from florence2.model.bart import EncodedPrompts
    from florence2.model.cache import DecoderCache
    from florence2.model.config import Florence2Config, TextConfig, VisionConfig
    from florence2.model.florence2 import Florence2

__all__ = ["DecoderCache", "EncodedPrompts", "Florence2", "Florence2Config", "TextConfig", "VisionConfig"]

_LAZY = {
    "DecoderCache": "cache",
    "EncodedPrompts": "bart",
    "Florence2": "florence2",
    "Florence2Config": "config",
    "TextConfig": "config",
    "VisionConfig": "config",
}


if not TYPE_CHECKING:  # hidden from type checkers, which would otherwise accept any name

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"florence2.model.{_LAZY[name]}"), name)
