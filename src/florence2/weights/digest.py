"""A digest of the weights that answer, so that what they have answered can be told from answers of others.

In: a checkpoint and adapters. Out: SHA-256 in hexadecimal: of the one file of weights the digest that ``sha256sum`` and the hub give it, of
several files one over theirs. A file is read once in a process, and not at all where the hub's cache has named it by its digest. Reads no
tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from florence2.errors import CheckpointError
from florence2.weights.checkpoint import Checkpoint
from florence2.weights.files import ADAPTER_CONFIG, INDEX_SUFFIX, choose_adapter_weights, choose_container
from florence2.weights.source import adapter_names, resolve_adapter

_SHA256 = re.compile(r"[0-9a-f]{64}")


def model_digest(checkpoint: Checkpoint, adapters: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = ()) -> str:
    """The digest of a checkpoint's weights with adapters, whatever their folders are called.

    Args:
        checkpoint: the result of ``read_checkpoint``, or that of an engine; its own adapters count.
        adapters: folders or hub ids of adapters that are merged in this order after its own.

    Raises:
        CheckpointError: a file is missing or can't be read.
        ModelNotFound, DownloadError: an adapter is not there.
    """
    folders = [*checkpoint.adapters, *map(resolve_adapter, adapter_names(adapters))]
    files = [*_weights(checkpoint.folder), *(path for folder in folders for path in _adapter(folder))]
    digests = list(map(_digest, files))
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode("ascii")).hexdigest()


def _weights(folder: Path) -> Iterator[Path]:
    """The files with a checkpoint's weights, in the order of their names."""
    container = choose_container(_names(folder))
    if container is None:
        raise CheckpointError(f"{folder} holds no weights of a model")
    if not container.endswith(INDEX_SUFFIX):
        yield folder / container
        return
    try:
        shards = sorted(set(json.loads((folder / container).read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder / container} can't be read: {error}") from error
    yield from (folder / shard for shard in shards)


def _adapter(folder: Path) -> Iterator[Path]:
    """The files that decide what an adapter changes: its weights, and how much they count."""
    weights = choose_adapter_weights(_names(folder))
    if weights is None:
        raise CheckpointError(f"{folder} holds no weights of an adapter")
    yield from (folder / ADAPTER_CONFIG, folder / weights)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise CheckpointError(f"{folder} can't be read: {error.strerror}") from error


def _digest(path: Path) -> str:
    """The digest of a file."""
    try:
        real = Path(os.path.realpath(path))
        if real.parent.name == "blobs" and _SHA256.fullmatch(real.name):  # the hub's cache, which has checked it
            return real.name
        status = real.stat()
        return _digest_of(real, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}") from error


@lru_cache(maxsize=256)
def _digest_of(path: Path, num_bytes: int, changed_ns: int) -> str:
    """The digest of a file that has this length and was changed at this time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
