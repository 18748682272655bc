"""Tensors in files, with shapes known and values not read yet.

In: a checkpoint's folder or one file. Out: a ``StoredTensor`` for each name, whose ``read`` returns the values. Values that keep their
type are mapped from the file and take no memory of their own; values that change their type are read and converted one tensor at a
time. Knows nothing of the meaning of names.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from florence2.errors import CheckpointError
from florence2.weights.files import CONTAINERS, INDEX_SUFFIX, choose_container
from florence2.weights.json_reader import read_json

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}

_PIECE = 1 << 20  # values that are read and converted at a time


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file.

    Attributes:
        name: its name in the file.
        shape: its dimensions.
        path: the file.
        read: returns the values in a floating-point type; mapped from the file if they are stored in this type.
        location: equal for two tensors that are the same bytes of the same file; None if that is not known.
        dtype: the stored type; None if the values are computed.
    """

    name: str
    shape: tuple[int, ...]
    path: Path
    read: Callable[[torch.dtype], Tensor]
    location: Hashable = None
    dtype: torch.dtype | None = None


def open_folder(folder: Path, *, mapped: bool = True) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint's folder, from the first container of ``files.CONTAINERS`` that is there.

    Args:
        folder: the checkpoint's folder.
        mapped: as in ``open_file``.

    Raises:
        CheckpointError: there is no container, a shard is missing, or a file is damaged.
    """
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    container = choose_container(names)
    if container is None:
        weights = [name for name in sorted(names) if name.endswith((".safetensors", ".bin"))]
        raise CheckpointError(
            f"{folder} holds no weights that can be read: expected {', '.join(CONTAINERS[:-1])} or {CONTAINERS[-1]}, "
            f"found {', '.join(weights[:8]) or 'none'}."
        )
    if not container.endswith(INDEX_SUFFIX):
        return open_file(folder / container, mapped=mapped)
    return _open_shards(folder, container, mapped)


def open_file(path: Path, *, mapped: bool = True) -> dict[str, StoredTensor]:
    """The tensors of one safetensors or pickled file; no code in a pickled file is executed.

    Args:
        path: the file.
        mapped: values that keep their type are a view of the file; otherwise all values are in memory of their own.

    Raises:
        CheckpointError: the file is missing or damaged, or does not hold tensors only.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing.")
    with path.open("rb") as file:
        if file.read(24).startswith(b"version https://git-lfs"):
            raise CheckpointError(f"{path} is only a Git LFS pointer, not the weights: run `git lfs pull` in its folder.")
    return _open_safetensors(path, mapped) if path.suffix == ".safetensors" else _open_pickled(path, mapped)


def _open_shards(folder: Path, index: str, mapped: bool) -> dict[str, StoredTensor]:
    weight_map = read_json(folder / index).object("weight_map")
    listed: dict[str, str] = weight_map.values("the name of a shard", str)
    shards = sorted(set(listed.values()))
    if not shards or any(Path(shard).name != shard for shard in shards):
        raise CheckpointError(f"{folder / index}: expected a weight_map from tensors to files in the same folder.")
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise CheckpointError(f"{folder} is incomplete: {index} names {len(missing)} file(s) that are not there: {', '.join(missing[:8])}.")
    tensors: dict[str, StoredTensor] = {}
    for shard in shards:
        tensors.update(open_file(folder / shard, mapped=mapped))
    absent = sorted(set(listed) - set(tensors))
    if absent:
        raise CheckpointError(f"{folder} is incomplete: {index} names {len(absent)} tensor(s) that no file holds: {', '.join(absent[:8])}.")
    return tensors


def _open_safetensors(path: Path, mapped: bool) -> dict[str, StoredTensor]:
    try:
        # The library checks the header against the file; here its offsets are only looked up.
        with safe_open(path, framework="pt"):
            header, data_start = _read_header(path)
    except (SafetensorError, OSError, ValueError, struct.error) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}). Fetch or copy it again.") from error
    header.pop("__metadata__", None)
    mapping = _mapping(path) if mapped else None
    tensors = {}
    for name, entry in header.items():
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise CheckpointError(f"{path}: {name} is stored as {entry['dtype']}, expected one of {', '.join(_DTYPES)}.")
        begin, end = entry["data_offsets"]
        layout = torch.empty(entry["shape"], dtype=dtype, device="meta")
        tensors[name] = _stored(name, path, mapping, layout, data_start + begin, end - begin)
    return tensors


def _read_header(path: Path) -> tuple[dict, int]:
    """The header's entries and the offset of the data behind it. Source: the safetensors format's description."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), 8 + length


def _open_pickled(path: Path, mapped: bool) -> dict[str, StoredTensor]:
    # On the meta device: shapes and offsets are read, values are not.
    values = _unpickle(path, "meta")
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise CheckpointError(f"{path}: expected a table of named tensors, got {type(values).__name__}.")
    foreign = [name for name, value in values.items() if not isinstance(value, Tensor) or not value.is_floating_point()]
    if foreign:
        raise CheckpointError(f"{path}: expected floating-point tensors only, got {len(foreign)} other value(s): {', '.join(foreign[:8])}.")
    mapping, tensors = _mapping(path) if mapped else None, {}
    for name, value in values.items():
        storage = value.untyped_storage()
        offset = getattr(storage, "_checkpoint_offset", None)
        if offset is not None:
            tensors[name] = _stored(name, path, mapping, value, offset, storage.nbytes())
    if len(tensors) == len(values):
        return tensors
    # Files from before PyTorch 1.6 have no offsets and can only be read as a whole.
    whole = cast("dict[str, Tensor]", _unpickle(path, "cpu"))
    return {name: StoredTensor(name, tuple(value.shape), path, value.detach().to) for name, value in whole.items()}


def _unpickle(path: Path, device: str) -> object:
    """The file's content; only tensors and plain containers are allowed in it."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: it is damaged or holds code or objects besides tensors, and reading it would run them. "
            "Ask for the weights as safetensors."
        ) from error
    except Exception as error:
        # Bytes that are no pickle can raise anything, so no list of classes would be complete.
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{path} is damaged or no PyTorch weights file ({reason}). Fetch or copy it again.") from error


def _mapping(path: Path) -> Callable[[], torch.UntypedStorage]:
    """The whole file as one private mapping, created at the first call."""

    @cache
    def mapped() -> torch.UntypedStorage:
        return torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8).untyped_storage()

    return mapped


def _stored(
    name: str, path: Path, mapping: Callable[[], torch.UntypedStorage] | None, layout: Tensor, offset: int, num_bytes: int
) -> StoredTensor:
    """The tensor with the type, shape and strides of ``layout`` in these bytes of a file."""
    shape, strides, first = layout.shape, layout.stride(), layout.storage_offset()

    def read(dtype: torch.dtype) -> Tensor:
        if mapping is not None and dtype == layout.dtype and offset % dtype.itemsize == 0:
            storage = mapping()[offset : offset + num_bytes]
        else:
            if dtype != layout.dtype and layout.is_contiguous() and first == 0:
                return _read_as(path, offset, layout, dtype)
            storage = _read_bytes(path, offset, num_bytes)
        stored = torch.empty(0, dtype=layout.dtype).set_(storage, first, shape, strides)  # type: ignore[arg-type]
        return stored.to(dtype).contiguous()

    return StoredTensor(name, tuple(shape), path, read, (path, offset, tuple(shape), strides, first, layout.dtype), layout.dtype)


def _read_as(path: Path, offset: int, layout: Tensor, dtype: torch.dtype) -> Tensor:
    """A contiguous tensor in another type, read a few megabytes at a time, so that the stored type is never in memory as a whole."""
    converted = torch.empty(layout.numel(), dtype=dtype)
    for start in range(0, layout.numel(), _PIECE):
        count = min(_PIECE, layout.numel() - start)
        piece = _read_bytes(path, offset + start * layout.element_size(), count * layout.element_size())
        converted[start : start + count] = torch.empty(0, dtype=layout.dtype).set_(piece)  # type: ignore[arg-type]
    return converted.view(layout.shape)


def _read_bytes(path: Path, offset: int, length: int) -> torch.UntypedStorage:
    """Bytes of a file, copied to memory that is freed with the tensor."""
    data = np.fromfile(path, dtype=np.uint8, count=length, offset=offset)
    if data.size != length:
        raise CheckpointError(f"{path} ended {length - data.size} bytes early. Fetch or copy it again.")
    return torch.from_numpy(data).untyped_storage()
