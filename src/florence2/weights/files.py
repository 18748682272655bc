"""The files of a checkpoint or an adapter, by name.

The same rules select from a hub listing (what to fetch) and from a local folder (what to open), so that nothing is fetched that is
not read: one container of weights, safetensors before pickled files, and never code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from florence2.errors import CheckpointError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
BASE_FOLDER = "base"
INDEX_SUFFIX = ".index.json"

SETTINGS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
# In order of preference. A name with the index suffix stands for the index and its shards.
CONTAINERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def choose_container(names: Iterable[str]) -> str | None:
    """The first of ``CONTAINERS`` that is among the names; None if there is none."""
    present = set(names)
    return next((container for container in CONTAINERS if container in present), None)


def choose_adapter_weights(names: Iterable[str]) -> str | None:
    """The adapter's tensor file among the names; None if there is none."""
    present = set(names)
    return next((container for container in ADAPTER_WEIGHTS if container in present), None)


def check_is_adapter(folder: Path) -> None:
    """Check that a folder holds an adapter.

    Raises:
        CheckpointError: it holds no ``adapter_config.json``.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise CheckpointError(f"{folder} is no adapter: expected {ADAPTER_CONFIG} and one of {', '.join(ADAPTER_WEIGHTS)}.")


def is_adapter(names: Iterable[str]) -> bool:
    """Whether these are the files of an adapter: its configuration, and no weights of a whole model."""
    present = set(names)
    return ADAPTER_CONFIG in present and choose_container(present) is None


def is_shard(name: str, container: str) -> bool:
    """Whether ``name`` is a shard of the container with this index name."""
    stem, suffix = container.removesuffix(INDEX_SUFFIX).rsplit(".", 1)
    return re.fullmatch(rf"{re.escape(stem)}-\d+-of-\d+\.{re.escape(suffix)}", name) is not None


def choose(names: Iterable[str]) -> list[str]:
    """The files to fetch from a repository's listing, weights last.

    The base of an adapter is included if it is in the adapter's ``base`` folder.
    """
    names = sorted(names)
    chosen = [name for name in SETTINGS if name in names]
    if is_adapter(names):
        nested = [name.removeprefix(f"{BASE_FOLDER}/") for name in names if name.startswith(f"{BASE_FOLDER}/")]
        weights = choose_adapter_weights(names)
        return [ADAPTER_CONFIG, *chosen, *(f"{BASE_FOLDER}/{name}" for name in choose(nested)), *([weights] if weights else [])]
    container = choose_container(names)
    if container is None:
        return chosen
    shards = [name for name in names if container.endswith(INDEX_SUFFIX) and is_shard(name, container)]
    return [*chosen, container, *shards]
