"""Gradient checkpointing: layers keep no activations and are computed again for their gradients: more time, a fraction of the memory.

In: a model, which is changed in place. Knows nothing of what it is trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch.utils.checkpoint import checkpoint

from florence2.model import Florence2
from florence2.training.autocast import attention_for


def checkpoint_layers(model: Florence2) -> None:
    """Checkpoint each layer of the text model and each block of the tower."""
    text, kind = model.language_model, model.device.type
    stages: Any = model.vision_tower.blocks
    blocks: list[Any] = [*text.encoder.layers, *text.decoder.layers, *(block for stage in stages for block in stage)]
    for block in blocks:
        block.forward = _Checkpointed(block.forward, kind)


@dataclass(frozen=True)
class _Checkpointed:
    """A module's forward that keeps nothing but its arguments; it is computed the second time with the attention of the first."""

    forward: Callable[..., Any]
    kind: str

    def __call__(self, *arguments: Any) -> Any:
        return checkpoint(self.forward, *arguments, use_reentrant=False, context_fn=lambda: (nullcontext(), attention_for(self.kind)))
