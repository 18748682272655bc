"""Which tokenizer a model with adapters has.

In: a checkpoint, the folders of the adapters merged into it, and how many rows the model's token tables have. Out: the tokenizer:
the checkpoint's, or an adapter's own where tokens were added for its training. Reads no tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from florence2.errors import CheckpointError
from florence2.tasks.tokenizer import Tokenizer
from florence2.tasks.vocabulary import IMAGE_TOKEN
from florence2.weights.checkpoint import Checkpoint

_SHOWN = 8


def read_tokenizer(checkpoint: Checkpoint, adapters: Sequence[Path], num_rows: int) -> Tokenizer:
    """The tokenizer of a checkpoint with adapters; the last one that adds tokens decides.

    Args:
        checkpoint: what ``read_checkpoint`` gave; its own adapters come first.
        adapters: further adapters' folders.
        num_rows: rows of the model's token tables.

    Raises:
        CheckpointError: damaged files, added tokens that have no rows, or rows that have no tokens.
    """
    tokenizer = Tokenizer.load(checkpoint.folder)
    added: list[str] = []
    for folder in (*checkpoint.adapters, *adapters):
        if not _has_tokenizer(folder):
            continue
        other = Tokenizer.load(folder)
        known = tokenizer.ids()
        new = {token: index for token, index in other.ids().items() if token not in known and token != IMAGE_TOKEN}
        if not new:
            continue
        _check(folder, new, known, other.ids(), num_rows)
        tokenizer, added = other, sorted(new, key=new.__getitem__)
    if num_rows > checkpoint.config.text.vocab_size and not added:
        raise CheckpointError(
            f"An adapter of {checkpoint.folder} brings {num_rows - checkpoint.config.text.vocab_size} row(s) of added tokens and no "
            "tokenizer that names them. Put the tokenizer.json that it was trained with into the adapter's folder."
        )
    return tokenizer


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file())


def _check(folder: Path, new: dict[str, int], known: dict[str, int], ids: dict[str, int], num_rows: int) -> None:
    """Refuse a tokenizer that is not the base's with tokens added, or whose tokens have no rows."""
    moved = [token for token, index in known.items() if token != IMAGE_TOKEN and ids.get(token) != index]
    if moved:
        raise CheckpointError(
            f"{folder}: its tokenizer has other ids than its base's for {len(moved)} token(s) ({', '.join(moved[:_SHOWN])}), so it was "
            "trained on another base."
        )
    without_row = sorted((token for token, index in new.items() if index >= num_rows), key=new.__getitem__)
    if without_row:
        raise CheckpointError(
            f"{folder} was trained after {len(new)} token(s) were added, and there are no rows for {', '.join(without_row[:_SHOWN])}: the "
            f"token tables have {num_rows} rows. Give the model that was trained, saved whole, as the base, or merge the adapter with PEFT."
        )
