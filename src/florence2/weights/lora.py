"""LoRA adapters, merged into the tensors of their base.

In: an adapter's folder (PEFT's ``adapter_config.json`` and tensors, module names of either layout) and the base's tensors by our
names. Out: the merged tensors by the same names. A merged tensor is computed in float32 when it is read, so that only tensors that
the adapter changes are copied. Knows nothing of models.
Source: LoRA (arXiv 2106.09685), rank-stabilised scaling (arXiv 2312.03732), DoRA (arXiv 2402.09353), PEFT's file format.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from florence2.errors import CheckpointError
from florence2.weights.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_is_adapter, choose_adapter_weights
from florence2.weights.json_reader import JsonObject, read_json
from florence2.weights.names import HEAD, to_ours, without_wrappers
from florence2.weights.tables import ALL_TABLES, TableChanges, TokenRows, rows_beside_others
from florence2.weights.tensors import StoredTensor, open_file

_KEY = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(\.default)?(\.(?P<kind>weight|bias))?"
)
# Segments that PEFT inserts between a module's name and its parameters when it trained or wrapped the whole module.
_WHOLE = re.compile(r"\.(base_layer(?=\.(weight|bias)$)|modules_to_save(\.default)?(?=\.))")
_IS_COPY = re.compile(r"\.modules_to_save\.")
# Single rows of a token table that were trained.
_ROWS = (".trainable_tokens_delta", ".trainable_tokens_delta.default")
_ROWS_OF = re.compile(r"(\.token_adapter)?\.trainable_tokens_delta(\.default)?$")

# The settings of variants that can be merged; with others, tensors are no update of the published weights.
_RULES = (
    ("peft_type", ("LORA",), "LoRA"),
    ("init_lora_weights", (True, False, "gaussian", "eva", "orthogonal"), "an initialisation that leaves the base as it was"),
    ("use_qalora", (False,), "plain LoRA"),
)
_REFUSED_WHEN_SET = (
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
class Update:
    """The low-rank update of one module: ``scale x B A``, with DoRA's magnitudes if there are any."""

    module: str
    scale: float = 1.0
    parts: dict[str, StoredTensor] = field(default_factory=dict)

    @property
    def num_outputs(self) -> int:
        """The number of rows of the changed weight; for an embedding, of the table."""
        if "lora_embedding_A" in self.parts:
            return self.parts["lora_embedding_A"].shape[-1]
        return self.parts["lora_B"].shape[0]

    def part(self, name: str) -> Tensor:
        """One of its tensors, in float32."""
        return self.parts[name].read(torch.float32)

    def merged(self, weight: Tensor) -> Tensor:
        """The module's weight plus the update, in float32."""
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
        # DoRA: the weights of each output keep their direction and get the trained norm; the outputs of an embedding are its columns.
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
    """One adapter whose tensors are not read yet.

    Attributes:
        folder: the adapter's.
        tables: its changes of token tables, that of the head included.
        updates: its low-rank updates by our names of the tensors.
        replacements: the tensors that it replaces by our names.
        head: its low-rank update of the head; None if there is none.
    """

    folder: Path
    tables: TableChanges
    updates: dict[str, Update]
    replacements: dict[str, StoredTensor]
    head: Update | None = None

    def applied_to(self, base: dict[str, StoredTensor], *, is_tied: bool = True) -> dict[str, StoredTensor]:
        """The base's tensors with this adapter's changes, not read yet.

        Token tables stay tied unless the adapter changes one of them alone.

        Args:
            base: the tensors of the base by our names.
            is_tied: the base's configuration ties its token tables.

        Raises:
            CheckpointError: the adapter changes tensors that the base does not have, or its token tables do not fit the base.
        """
        tensors = self.tables.applied_to(base, is_tied=is_tied)
        touched = {*self.updates, *self.replacements}
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


def open_adapter(folder: Path) -> Adapter:
    """The adapter in a folder.

    Raises:
        CheckpointError: there is no adapter, it can't be merged, or its tensors are damaged, incomplete or of another model.
    """
    check_is_adapter(folder)
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
    path = folder / weights
    entries = [(without_wrappers(key), stored) for key, stored in open_file(path).items()]
    updates = _updates(config, path, entries)
    rows = _token_rows(config, path, entries)
    whole = [(name, stored) for name, stored in entries if _KEY.fullmatch(name) is None and not name.endswith(_ROWS)]
    replacements = _by_name(path, [(_WHOLE.sub("", name), stored) for name, stored in whole])
    copies = _copied(config, [name for name, _ in whole])
    in_tables = {name: replacements.pop(name) for name in list(replacements) if name in ALL_TABLES}
    table_updates = {name: updates.pop(name) for name in list(updates) if name in ALL_TABLES}
    tables = TableChanges(
        source=str(folder),
        in_place={name: table for name, table in in_tables.items() if name not in copies},
        copies={name: table for name, table in in_tables.items() if name in copies},
        rows=rows,
        updates={name: update.merged for name, update in table_updates.items()},
        num_rows={name: update.num_outputs for name, update in table_updates.items()},
    )
    return Adapter(folder, tables, updates, replacements, table_updates.get(HEAD))


def _copied(config: JsonObject, names: Iterable[str]) -> set[str]:
    """Our names of the tensors in modules that PEFT trained as copies (``modules_to_save`` lists the ends of their names)."""
    listed = tuple(without_wrappers(module) for module in config.strings("modules_to_save"))
    copied = set()
    for name in names:
        bare = _WHOLE.sub("", name)
        modules = accumulate(bare.split(".")[:-1], "{}.{}".format)
        if _IS_COPY.search(name) or (listed and any(module.endswith(listed) for module in modules)):
            copied.add(to_ours(bare))
    return copied


def _by_name(path: Path, entries: Iterable[tuple[str, StoredTensor]]) -> dict[str, StoredTensor]:
    """The tensors by our names."""
    tensors: dict[str, StoredTensor] = {}
    for name, stored in entries:
        ours = to_ours(name)
        if ours in tensors:
            raise CheckpointError(f"{path} holds one tensor twice, as {tensors[ours].name} and as {stored.name}.")
        tensors[ours] = stored
    return tensors


def _updates(config: JsonObject, path: Path, entries: Iterable[tuple[str, StoredTensor]]) -> dict[str, Update]:
    """The low-rank updates by the names of the weights that they change."""
    updates: dict[str, Update] = {}
    for name, stored in entries:
        match = _KEY.fullmatch(name)
        if match is None:
            continue
        # The module's name in PEFT's spelling, for which patterns are written.
        spelled = _KEY.fullmatch(stored.name.rpartition("base_model.model.")[2]) or match
        part = "bias" if match["kind"] == "bias" else match["part"]
        target = to_ours(f"{match['module']}.{'bias' if part == 'bias' else 'weight'}")
        update = updates.setdefault(target, Update(spelled["module"]))
        if part in update.parts:
            raise CheckpointError(f"{path} holds one tensor twice, as {update.parts[part].name} and as {stored.name}.")
        update.parts[part] = stored
    for target, update in updates.items():
        _complete(config, target, update, updates)
    return updates


def _token_rows(config: JsonObject, path: Path, entries: Iterable[tuple[str, StoredTensor]]) -> dict[str, TokenRows]:
    """The trained rows of token tables, by the tables' names."""
    rows = {}
    for name, stored in entries:
        if not name.endswith(_ROWS):
            if ".token_adapter." in name:  # PEFT wrapped one change of a table in another
                raise rows_beside_others(str(path))
            continue
        module = _ROWS_OF.sub("", name)
        ids = _token_ids(config, module)
        if to_ours(f"{module}.weight") not in ALL_TABLES or ids is None or len(stored.shape) != 2 or len(ids) != stored.shape[0]:
            raise CheckpointError(
                f"{path}: expected {stored.name} to hold one row for each of the trainable_token_indices of a token table in "
                f"{ADAPTER_CONFIG}, got {list(stored.shape)}."
            )
        rows[to_ours(f"{module}.weight")] = TokenRows(ids, stored)
    return rows


def _token_ids(config: JsonObject, module: str) -> tuple[int, ...] | None:
    """The token ids in ``adapter_config.json`` for a module: one list for the input table, or one for each end of a module name."""
    if not isinstance(config.get("trainable_token_indices"), dict):
        return config.integers("trainable_token_indices", ())
    listed = config.object("trainable_token_indices")
    key = next((key for key in listed if module.endswith(without_wrappers(key))), None)
    return None if key is None else listed.integers(key, ())


def _complete(config: JsonObject, target: str, update: Update, updates: dict[str, Update]) -> None:
    """Set the scale of an update, after a check that it has both factors."""
    owner = update if not target.endswith(".bias") else updates.get(to_ours(f"{update.module}.weight"), update)
    downs = [part for name, part in owner.parts.items() if name.endswith("_A")]
    if len(downs) != 1 or not any(name.endswith("_B") for name in owner.parts):
        raise CheckpointError(
            f"{config.where}: the update of {update.module} is incomplete: expected a lora_A and a lora_B, got {', '.join(owner.parts)}."
        )
    rank = downs[0].shape[0]
    patterns = config.object("alpha_pattern")
    pattern = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", update.module)), None)
    alpha = patterns.number(pattern, 0.0) if pattern is not None else config.number("lora_alpha", 8.0)
    update.scale = alpha / (math.sqrt(rank) if config.flag("use_rslora", False) else rank)
