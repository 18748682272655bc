"""A trained model as a checkpoint folder in the native layout, which this package and the reference load.

In: a model, with or without low-rank updates, and the checkpoint it came from. Out: its folder, tokenizer included. Knows nothing
of training.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from florence2.model import Florence2
from florence2.tasks.tokenizer import Tokenizer
from florence2.training.lora import merge_lora
from florence2.weights.checkpoint import Checkpoint
from florence2.weights.names import HEAD, SHARED
from florence2.weights.save import save_native

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")


def save_checkpoint(
    model: Florence2, checkpoint: Checkpoint, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype = torch.float32
) -> None:
    """Write a model with its updates merged; the model itself stays as it is.

    Args:
        model: what was trained.
        checkpoint: what it began as: its image and generation settings and its dropped phrases are kept.
        tokenizer: the checkpoint's. One without ``<image>``, as original checkpoints have, gets it, and the table a row for it.
        folder: made if need be.
        dtype: of the weights on disk.
    """
    whole = copy.deepcopy(model).cpu()
    merge_lora(whole)
    if checkpoint.config.image_token_id is None:
        whole = _with_image_token(whole)
        tokenizer.save(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _TOKENIZER_FILES:
            if (checkpoint.folder / name).is_file():
                shutil.copyfile(checkpoint.folder / name, folder / name)
    save_native(
        whole,
        folder,
        dtype=dtype,
        image=checkpoint.image,
        generation=checkpoint.generation,
        banned_phrases=checkpoint.banned_phrases,
    )


def _with_image_token(model: Florence2) -> Florence2:
    """The model with one more row in its token tables, for ``<image>``; no prompt or answer holds it."""
    text = model.config.text
    model.config = replace(model.config, text=replace(text, vocab_size=text.vocab_size + 1), image_token_id=text.vocab_size)
    for name, table in list(model.named_parameters()):
        if name in (SHARED, f"language_model.{HEAD}"):
            module, _, parameter = name.rpartition(".")
            grown = torch.cat([table.detach(), table.new_zeros(1, table.shape[1])])
            setattr(model.get_submodule(module), parameter, nn.Parameter(grown))
    return model
