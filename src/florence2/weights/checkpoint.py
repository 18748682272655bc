"""A checkpoint's small JSON files as one value.

In: a folder, of a checkpoint or of an adapter. Out: a ``Checkpoint``: dimensions, image settings, generation defaults, dropped
phrases, and the adapters to merge. Reads no tensors; downloads only an adapter's base.
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
_REASON_LENGTH = 80  # of another error's message inside one, which stays readable then


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says about itself.

    Attributes:
        folder: where its tensors and its tokenizer are.
        config: the model's dimensions.
        image: how images are prepared.
        generation: how answers are generated, unless a request says otherwise.
        banned_phrases: phrases that grounding drops, exact and case-sensitive.
        adapters: adapter folders that belong to it and are merged first, because the user named the adapter as the model.
        is_tied: whether it declares one table for prompts, answers and the head.
    """

    folder: Path
    config: Florence2Config
    image: ImageSettings
    generation: GenerationDefaults
    banned_phrases: frozenset[str]
    adapters: tuple[Path, ...] = ()
    is_tied: bool = True


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a folder's JSON files.

    An adapter's folder stands for its base with the adapter merged. The base lies in its ``base`` folder or is what
    ``adapter_config.json`` names, a folder or a hub id.

    Raises:
        CheckpointError: a file is missing, damaged, of another model, or asks for what this model can't do; the message names it.
        ModelNotFound, DownloadError: an adapter's base could not be had.
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
    """The folder of the checkpoint that an adapter was made for."""
    if (adapter / BASE_FOLDER).is_dir():
        return adapter / BASE_FOLDER
    config = read_json(adapter / ADAPTER_CONFIG)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{config.where} names no base_model_name_or_path. {_give_base(adapter)}")
    nearby = adapter / name
    if os.path.isdir(nearby):  # unlike Path.is_dir, it takes what can't be a path for one that is not there
        return nearby
    try:
        return resolve(f"{name}@{revision}" if isinstance(revision, str) and revision and not os.path.exists(name) else name)
    except (ModelNotFound, DownloadError) as error:
        reason = error.message.split(". ")[0][:_REASON_LENGTH].rstrip(".")
        message = f"{config.where}: its base_model_name_or_path {_shortened(name)} can't be had: {reason}. {_give_base(adapter)}"
        raise type(error)(message, field="model") from error


def _give_base(adapter: Path) -> str:
    """What helps where an adapter's base is not to be found."""
    # It has been named in full already; a long path twice makes no readable message.
    this = str(adapter) if len(str(adapter)) <= _LONGEST_TWICE else "THIS"
    return f"Give the base yourself: --model BASE --adapter {this}, in Python load(BASE, adapters=[…]), or put it there as {BASE_FOLDER}/."


def _shortened(name: str) -> str:
    return name if len(name) <= _REASON_LENGTH else f"{name[:_REASON_LENGTH]}…"
