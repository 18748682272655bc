"""LoRA adapters, merged into the tensors of their base.

In: an adapter's folder (PEFT's ``adapter_config.json`` and tensors, module names of either layout) and a base's tensors by our
names. Out: tensors by the same names that read as base and adapter together, computed in float32 when they are read, so that
nothing but the touched tensors is ever copied. Knows nothing of models.
Source: LoRA (arXiv 2106.09685), rank-stabilised scaling (arXiv 2312.03732), DoRA (arXiv 2402.09353), PEFT's file format.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from florence2.errors import CheckpointError
from florence2.weights.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, choose_adapter_weights
from florence2.weights.names import EMBEDDINGS, HEAD, SHARED, to_ours
from florence2.weights.section import Section, read_json
from florence2.weights.tensors import StoredTensor, open_file

_KEY = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(\.default)?(\.(?P<kind>weight|bias))?"
)
# What PEFT puts between a module's name and its own parameters when a whole module was trained or wrapped.
_WHOLE = re.compile(r"\.(base_layer|modules_to_save(\.default)?)(?=\.(weight|bias)$)")

# Variants whose tensors mean something else than an update of the published weights.
_RULES = (
    ("peft_type", ("LORA",), "LoRA"),
    ("init_lora_weights", (True, False, "gaussian", "eva", "orthogonal"), "an initialisation that leaves the base as it was"),
    ("use_qalora", (False,), "plain LoRA"),
)
_REFUSED_WHEN_SET = (
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
)


@dataclass
class _Update:
    """The low-rank update of one module: ``scale x B A``, with DoRA's magnitudes if it has them."""

    module: str
    scale: float = 1.0
    parts: dict[str, StoredTensor] = field(default_factory=dict)

    def part(self, name: str) -> Tensor:
        return self.parts[name].read(torch.float32)

    def merged(self, weight: Tensor) -> Tensor:
        """The module's weight with the update, in float32."""
        is_embedding = "lora_embedding_A" in self.parts
        prefix = "lora_embedding_" if is_embedding else "lora_"
        down, up = self.part(f"{prefix}A"), self.part(f"{prefix}B")
        try:
            delta = _delta(down, up, weight.shape, is_embedding)
        except (RuntimeError, ValueError) as error:
            shapes = f"A {list(down.shape)} and B {list(up.shape)}"
            raise CheckpointError(
                f"{self.parts[f'{prefix}A'].path}: the update of {self.module} ({shapes}) does not fit its weight "
                f"{list(weight.shape)}: {error}."
            ) from error
        merged = weight.float() + self.scale * delta
        if "lora_magnitude_vector" not in self.parts:
            return merged
        # Each output's weights keep their direction and get the trained length; an embedding's "outputs" are its columns.
        axes = (0,) if is_embedding else tuple(range(1, merged.dim()))
        lengths = torch.linalg.vector_norm(merged, dim=axes, keepdim=True)
        return merged * (self.part("lora_magnitude_vector").reshape(lengths.shape) / lengths)


def _delta(down: Tensor, up: Tensor, shape: torch.Size, is_embedding: bool) -> Tensor:
    if is_embedding:
        delta = (up @ down).T
    elif down.dim() == 2:
        delta = up @ down
    elif down.shape[1] != shape[1]:
        raise ValueError("an update of a depthwise convolution mixes channels and can't be merged")
    else:
        # The second factor is a 1x1 convolution.
        delta = torch.einsum("or,rihw->oihw", up.flatten(1), down)
    if delta.shape != shape:
        raise ValueError("another shape comes out")
    return delta


@dataclass
class Adapter:
    """One adapter, opened: updates by our weight names, and whole tensors that replace those of the base."""

    folder: Path
    updates: dict[str, _Update]
    replacements: dict[str, StoredTensor]

    def applied_to(self, base: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
        """The base's tensors with this adapter's changes, still unread.

        The head stays tied to the embeddings unless the adapter changes one of them alone.

        Raises:
            CheckpointError: the adapter names tensors that the base has not, or changes the embeddings in a way one table can't hold.
        """
        tensors = dict(base)
        self._replace_embeddings(tensors)
        touched = {*self.updates, *self.replacements} - set(EMBEDDINGS)
        if HEAD in touched:
            tensors.setdefault(HEAD, tensors[SHARED])
        foreign = sorted(touched - set(tensors))
        if foreign:
            raise CheckpointError(
                f"{self.folder} does not fit its base: {len(foreign)} of its tensors change what is not there: {', '.join(foreign[:8])}."
            )
        for name in sorted(touched):
            tensors[name] = self._changed(name, self.replacements.get(name, tensors[name]), tensors[name].shape)
        return tensors

    def _changed(self, name: str, stored: StoredTensor, shape: tuple[int, ...]) -> StoredTensor:
        if stored.shape != shape:
            raise CheckpointError(f"{stored.path}: expected {name} to have the shape {list(shape)}, got {list(stored.shape)}.")
        update = self.updates.get(name)
        if update is None:
            return stored
        bias = name.endswith(".bias")
        change: Callable[[Tensor], Tensor] = (lambda value: value + update.scale * update.part("bias")) if bias else update.merged
        return StoredTensor(stored.name, shape, stored.path, lambda dtype: change(stored.read(torch.float32)).to(dtype))

    def _replace_embeddings(self, tensors: dict[str, StoredTensor]) -> None:
        """Take whole embedding tables over into the one table; refuse what would need several."""
        updated = [name for name in EMBEDDINGS if name in self.updates]
        if updated:
            raise CheckpointError(
                f"{self.folder}: a low-rank update of the token embeddings ({updated[0]}) is not supported: encoder, decoder and head "
                "share one table. Merge it with PEFT and load the merged checkpoint."
            )
        whole = [self.replacements[name] for name in EMBEDDINGS if name in self.replacements]
        if not whole:
            return
        tables = [table.read(torch.float32) for table in whole]
        complete = SHARED in self.replacements or len(whole) == 2
        if not complete:
            tables.append(tensors[SHARED].read(torch.float32))
        if not all(torch.equal(table, tables[0]) for table in tables[1:]):
            raise CheckpointError(
                f"{self.folder}: encoder and decoder come with different token embeddings ({', '.join(table.name for table in whole)}); "
                "one table for both is supported."
            )
        # A head that was tied to the table it replaces stays tied to the new one.
        tensors[SHARED] = self._changed(SHARED, whole[0], tensors[SHARED].shape)


def open_adapter(folder: Path) -> Adapter:
    """The adapter in a folder.

    Raises:
        CheckpointError: no adapter, a variant that can't be merged, or damaged, incomplete or foreign tensors.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise CheckpointError(f"{folder} is no adapter: expected {ADAPTER_CONFIG} and one of {', '.join(ADAPTER_WEIGHTS)}.")
    config = read_json(folder / ADAPTER_CONFIG)
    for key, accepted, meaning in _RULES:
        config.require(key, accepted, meaning)
    for key in _REFUSED_WHEN_SET:
        if config.get(key):
            raise CheckpointError(
                f"{config.where}: {key} is set; this variant can't be merged here. Merge it with PEFT and load the result."
            )
    weights = choose_adapter_weights(path.name for path in folder.iterdir())
    if weights is None:
        raise CheckpointError(f"{folder} is incomplete: expected one of {', '.join(ADAPTER_WEIGHTS)} beside {ADAPTER_CONFIG}.")
    updates: dict[str, _Update] = {}
    replacements: dict[str, StoredTensor] = {}
    for key, stored in open_file(folder / weights).items():
        name = key.removeprefix("base_model.model.")
        match = _KEY.fullmatch(name)
        if match is None:
            replacements[to_ours(_WHOLE.sub("", name))] = stored
            continue
        module, part = match["module"], "bias" if match["kind"] == "bias" else match["part"]
        target = to_ours(f"{module}.{'bias' if part == 'bias' else 'weight'}")
        updates.setdefault(target, _Update(module)).parts[part] = stored
    for target, update in updates.items():
        _complete(config, target, update, updates)
    return Adapter(folder, updates, replacements)


def _complete(config: Section, target: str, update: _Update, updates: dict[str, _Update]) -> None:
    """Check that an update has both factors, and set its scale."""
    owner = update if not target.endswith(".bias") else updates.get(to_ours(f"{update.module}.weight"), update)
    downs = [part for name, part in owner.parts.items() if name.endswith("_A")]
    if len(downs) != 1 or not any(name.endswith("_B") for name in owner.parts):
        raise CheckpointError(
            f"{config.where}: the update of {update.module} is incomplete: expected a lora_A and a lora_B, got {', '.join(owner.parts)}."
        )
    rank = downs[0].shape[0]
    patterns = config.section("alpha_pattern")
    pattern = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", update.module)), None)
    alpha = patterns.number(pattern, 0.0) if pattern is not None else config.number("lora_alpha", 8.0)
    update.scale = alpha / (math.sqrt(rank) if config.flag("use_rslora", False) else rank)
