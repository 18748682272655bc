"""The factors of a LoRA adapter, to be computed beside the weights of its base instead of being merged into them.

In: a checkpoint and an adapter's folder. Out: the scaled factors by our names of the layers. What is more than a low-rank update of linear
layers (trained modules, rows of token tables, convolutions, DoRA, added tokens) has to be merged, and is refused here. Knows nothing of
models' types and devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from florence2.errors import CheckpointError, NeedsMerging
from florence2.model.adapters import LowRankUpdate
from florence2.weights.checkpoint import Checkpoint
from florence2.weights.load import unchanged_tensors
from florence2.weights.lora import Adapter, Update, open_adapter
from florence2.weights.names import HEAD, SHARED
from florence2.weights.tables import TABLES, equal
from florence2.weights.tensors import StoredTensor
from florence2.weights.vocabulary import adds_tokens

_SHOWN = 4


def read_factors(checkpoint: Checkpoint, folder: Path) -> dict[str, LowRankUpdate]:
    """The scaled factors of an adapter, in float32.

    Args:
        checkpoint: its base.
        folder: the adapter's.

    Raises:
        NeedsMerging: it is more than a low-rank update of linear layers.
        CheckpointError: it can't be read, or is of another model.
    """
    adapter = open_adapter(folder)
    base = unchanged_tensors(checkpoint)
    updates = dict(adapter.updates)
    if adapter.head is not None:
        updates[HEAD] = adapter.head
    _check_plain(adapter, updates)
    _check_tables(adapter, base, is_tied=checkpoint.is_tied)
    if adds_tokens(checkpoint, folder):
        raise _needs_merging(folder, "has tokens of its own")
    shapes = {name: tensor.shape for name, tensor in base.items()}
    shapes[HEAD] = shapes.get(HEAD, shapes[SHARED])
    foreign = sorted(set(updates) - set(shapes))
    if foreign:
        raise CheckpointError(
            f"{folder} does not fit its base {checkpoint.folder}: {len(foreign)} of its tensors change what is not there: "
            f"{', '.join(foreign[:8])}."
        )
    return {name.removesuffix(".weight"): _factors(folder, name, update, shapes[name]) for name, update in updates.items()}


def _check_plain(adapter: Adapter, updates: Mapping[str, Update]) -> None:
    if adapter.replacements:
        raise _needs_merging(adapter.folder, f"has weights trained as a whole ({', '.join(sorted(adapter.replacements)[:_SHOWN])})")
    for name, update in updates.items():
        if name.endswith(".bias"):
            raise _needs_merging(adapter.folder, f"changes biases ({update.module})")
        if "lora_magnitude_vector" in update.parts:
            raise _needs_merging(adapter.folder, "is a DoRA adapter, whose update depends on the base's weights")
        if "lora_A" not in update.parts or len(update.parts["lora_A"].shape) != 2:
            raise _needs_merging(adapter.folder, f"changes more than linear layers ({update.module})")


def _check_tables(adapter: Adapter, base: Mapping[str, StoredTensor], *, is_tied: bool) -> None:
    """Check that the token tables stay as they are: PEFT may have saved them beside the updates, unchanged."""
    others = [name for name in adapter.tables.updates if name != HEAD]
    if others:
        raise _needs_merging(adapter.folder, f"changes token tables ({', '.join(others)})")
    tables = replace(adapter.tables, updates={}, num_rows={}).applied_to(base, is_tied=is_tied)
    changed = [name for name in TABLES if not equal(tables.get(name, tables[SHARED]), base.get(name, base[SHARED]))]
    if changed:
        raise _needs_merging(adapter.folder, f"has token tables of its own ({', '.join(changed)})")


def _factors(folder: Path, name: str, update: Update, shape: tuple[int, ...]) -> LowRankUpdate:
    down, up = update.part("lora_A"), update.part("lora_B")
    if (up.shape[0], down.shape[1]) != shape or up.shape[1] != down.shape[0]:
        raise CheckpointError(
            f"{folder} was trained on another base: the update of {update.module} (A {list(down.shape)} and B {list(up.shape)}) does not "
            f"fit its weight {list(shape)}."
        )
    if not (torch.isfinite(down).all() and torch.isfinite(up).all()):
        raise CheckpointError(f"{folder}: the update of {update.module} holds values that are no finite numbers ({name}).")
    return LowRankUpdate(down, (up * update.scale).T)


def _needs_merging(folder: Path, reason: str) -> NeedsMerging:
    return NeedsMerging(
        f"the adapter {folder} {reason}, so it can't share the weights of its base: load it merged, as a model of its own "
        "(--model BASE --adapter ADAPTER, in Python load(BASE, adapters=[ADAPTER]))",
        field="adapter",
    )
