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
from florence2.weights.names import DECODER_TABLE, HEAD, SHARED
from florence2.weights.save import save_native

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")


def save_checkpoint(model: Florence2, checkpoint: Checkpoint, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a model with its updates merged; the model itself stays as it is.

    Args:
        model: what was trained.
        checkpoint: what it began as: its image and generation settings and its dropped phrases are kept.
        tokenizer: the checkpoint's. One without ``<image>``, as original checkpoints have, gets it, and the table a row for it.
        folder: made if need be.
    """
    whole = copy.deepcopy(model).cpu()
    merge_lora(whole)
    if checkpoint.config.image_token_id is None:
        # <image> comes behind the tokenizer's last token, where a table that is padded has a row already.
        _give_image_token(whole, tokenizer.vocab_size if tokenizer.image_token_id is None else tokenizer.image_token_id)
        tokenizer.save(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _TOKENIZER_FILES:
            if (tokenizer.folder / name).is_file():
                shutil.copyfile(tokenizer.folder / name, folder / name)
    save_native(
        whole,
        folder,
        dtype=torch.float32,
        image=checkpoint.image,
        generation=checkpoint.generation,
        banned_phrases=checkpoint.banned_phrases,
    )


def _give_image_token(model: Florence2, token_id: int) -> None:
    """Name ``<image>``, with rows in the token tables up to it; no prompt or answer holds it."""
    text = model.config.text
    num_new = max(0, token_id + 1 - text.vocab_size)
    model.config = replace(model.config, text=replace(text, vocab_size=text.vocab_size + num_new), image_token_id=token_id)
    for name, table in list(model.named_parameters()):
        if name in (SHARED, DECODER_TABLE, f"language_model.{HEAD}"):
            module, _, parameter = name.rpartition(".")
            grown = torch.cat([table.detach(), table.new_zeros(num_new, table.shape[1])])
            setattr(model.get_submodule(module), parameter, nn.Parameter(grown))
