"""Layers that forget what they computed and compute it a second time for their gradients: more time, a fraction of the memory.

In: a model, which is changed in place. Knows nothing of what it is trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch.utils.checkpoint import checkpoint

from florence2.model import Florence2
from florence2.training.demo.trainer import attention_for


def recompute_layers(model: Florence2) -> None:
    """Do so with each layer of the text model and each block of the tower."""
    text, kind = model.language_model, model.device.type
    stages: Any = model.vision_tower.blocks
    blocks: list[Any] = [*text.encoder.layers, *text.decoder.layers, *(block for stage in stages for block in stage)]
    for block in blocks:
        block.forward = _Recomputed(block.forward, kind)


@dataclass(frozen=True)
class _Recomputed:
    """A module's forward that keeps nothing but its arguments; the second time it must be computed as it was the first time."""

    forward: Callable[..., Any]
    kind: str

    def __call__(self, *arguments: Any) -> Any:
        return checkpoint(self.forward, *arguments, use_reentrant=False, context_fn=lambda: (nullcontext(), attention_for(self.kind)))
