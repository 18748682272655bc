"""A checkpoint's JSON files as one value.

In: the folder of a checkpoint or of an adapter. Out: a ``Checkpoint``: dimensions, image settings, generation defaults, phrases that
grounding drops, and the adapters to merge. Reads no tensors; downloads only an adapter's base.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from florence2.errors import CheckpointError, DownloadError, ModelNotFound
from florence2.model.config import Florence2Config
from florence2.weights.architecture import read_architecture
from florence2.weights.defaults import (
    GenerationDefaults,
    ImageSettings,
    read_banned_phrases,
    read_generation_defaults,
    read_image_settings,
)
from florence2.weights.files import ADAPTER_CONFIG, BASE_FOLDER, is_adapter
from florence2.weights.json_reader import read_json
from florence2.weights.source import resolve

_LONGEST_TWICE = 110
_REASON_LENGTH = 80  # of one error's message inside another


@dataclass(frozen=True)
class Checkpoint:
    """The configuration of a checkpoint.

    Attributes:
        folder: the folder of its tensors and its tokenizer.
        config: the model's dimensions.
        image: the settings of image preprocessing.
        generation: the defaults of generation, for options that a request leaves open.
        banned_phrases: labels that grounding drops, compared exactly.
        adapters: folders of adapters that are merged first, because the user named an adapter as the model.
        is_tied: its configuration declares one token table for prompts, answers and the head.
    """

    folder: Path
    config: Florence2Config
    image: ImageSettings
    generation: GenerationDefaults
    banned_phrases: frozenset[str]
    adapters: tuple[Path, ...] = ()
    is_tied: bool = True


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """The checkpoint in a folder.

    The folder of an adapter means its base with the adapter merged. The base is in the ``base`` folder inside, or is the folder or
    hub id that ``adapter_config.json`` names.

    Raises:
        CheckpointError: a file is missing, damaged, of another model, or has an unsupported setting; the message names it.
        ModelNotFound, DownloadError: an adapter's base is not found or not downloaded.
    """
    folder = Path(folder)
    adapters: list[Path] = []
    while folder.is_dir() and is_adapter(path.name for path in folder.iterdir()):
        if folder in adapters:
            raise CheckpointError(f"{folder / ADAPTER_CONFIG}: the adapter is its own base.")
        adapters.insert(0, folder)
        folder = _base_of(folder)
    if not (folder / "config.json").is_file():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) if folder.is_dir() else ""
        message = f"{folder} is no checkpoint: expected config.json, found {found or 'nothing'}."
        raise CheckpointError(f"{message} {_give_base(adapters[0])}" if adapters else message)
    config = read_json(folder / "config.json")
    architecture = read_architecture(config)
    return Checkpoint(
        folder=folder,
        config=architecture,
        image=read_image_settings(folder, architecture.vision),
        generation=read_generation_defaults(folder, config),
        banned_phrases=read_banned_phrases(folder, config),
        adapters=tuple(adapters),
        is_tied=config.flag("tie_word_embeddings", True),
    )


def _base_of(adapter: Path) -> Path:
    """The folder of the checkpoint that an adapter was trained on."""
    if (adapter / BASE_FOLDER).is_dir():
        return adapter / BASE_FOLDER
    config = read_json(adapter / ADAPTER_CONFIG)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{config.where} names no base_model_name_or_path. {_give_base(adapter)}")
    nearby = adapter / name
    if os.path.isdir(nearby):  # unlike Path.is_dir, it returns False for a name that can't be a path
        return nearby
    try:
        return resolve(f"{name}@{revision}" if isinstance(revision, str) and revision and not os.path.exists(name) else name)
    except (ModelNotFound, DownloadError) as error:
        reason = error.message.split(". ")[0][:_REASON_LENGTH].rstrip(".")
        message = f"{config.where}: its base_model_name_or_path {_shortened(name)} can't be had: {reason}. {_give_base(adapter)}"
        raise type(error)(message, field="model") from error


def _give_base(adapter: Path) -> str:
    """The advice for an adapter whose base was not found."""
    # The message has named the path already; a long one is not repeated.
    this = str(adapter) if len(str(adapter)) <= _LONGEST_TWICE else "THIS"
    return f"Give the base yourself: --model BASE --adapter {this}, in Python load(BASE, adapters=[…]), or put it there as {BASE_FOLDER}/."


def _shortened(name: str) -> str:
    return name if len(name) <= _REASON_LENGTH else f"{name[:_REASON_LENGTH]}…"
