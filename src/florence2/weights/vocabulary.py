"""The tokenizer of a model with adapters.

In: a checkpoint, the folders of the adapters that are merged into it, and the number of rows of the model's token tables. Out: the
checkpoint's tokenizer, or an adapter's if tokens were added for its training. Reads no tensors.
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
    """The tokenizer of a checkpoint with adapters: that of the last adapter that adds tokens, or else the checkpoint's.

    Args:
        checkpoint: the result of ``read_checkpoint``; its own adapters come first.
        adapters: folders of further adapters.
        num_rows: the number of rows of the model's token tables.

    Raises:
        CheckpointError: a file is damaged, an added token has no row, or a row has no token.
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


def adds_tokens(checkpoint: Checkpoint, adapter: Path) -> bool:
    """Whether an adapter's folder has a tokenizer with tokens that the checkpoint's does not have."""
    if not _has_tokenizer(adapter):
        return False
    known = Tokenizer.load(checkpoint.folder).ids()
    return any(token not in known and token != IMAGE_TOKEN for token in Tokenizer.load(adapter).ids())


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file())


def _check(folder: Path, new: dict[str, int], known: dict[str, int], ids: dict[str, int], num_rows: int) -> None:
    """Check that a tokenizer is the base's with tokens added, and that all tokens have rows."""
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
