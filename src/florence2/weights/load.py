"""From a checkpoint to a model with its weights.

In: a ``Checkpoint``. Out: a ``Florence2`` in evaluation mode. The model is built on the meta device, and its tensors are assigned one by
one: mapped from the file if they keep their type, otherwise converted or packed while they are read. So there is never a second copy of
the weights. Names and shapes are checked before any tensor is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from florence2.errors import CheckpointError
from florence2.model import Florence2
from florence2.model.bart import Bart
from florence2.model.packing import attach_head, pack_head, pack_layers
from florence2.model.precision import Precision
from florence2.model.projector import temporal_table
from florence2.weights.checkpoint import Checkpoint
from florence2.weights.lora import open_adapter
from florence2.weights.names import (
    DECODER_TABLE,
    EMBEDDINGS,
    ENCODER_TABLE,
    HEAD,
    LOGITS_BIAS,
    SHARED,
    TEMPORAL_TABLE,
    TRANSPOSED,
    is_original,
    to_native,
    to_original,
    to_ours,
)
from florence2.weights.source import resolve_adapter
from florence2.weights.tables import PADDED_TO, TABLES, equal, tied_where_equal
from florence2.weights.tensors import StoredTensor, open_folder
from florence2.weights.untied import UntiedBart

_NAMES_SHOWN = 8


class _Uninitialised(TorchFunctionMode):
    """Layers are created without initial values; computing them would load PyTorch's compiler, which takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def load_model(
    checkpoint: Checkpoint,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    packing: Precision | None = None,
    adapters: Sequence[str | Path] = (),
) -> Florence2:
    """The model with the checkpoint's weights.

    Args:
        checkpoint: the result of ``read_checkpoint``.
        device: the device of the weights.
        dtype: their floating-point type; None for float32, whatever is stored.
        packing: the precision of packed layers on a CPU, in place of ``dtype``; the model is then faster, and can't be trained or
            saved. None for plain layers.
        adapters: folders or hub ids of LoRA adapters, merged in this order after the checkpoint's own.

    Raises:
        CheckpointError: the weights are damaged, incomplete or of another model, or an adapter does not fit.
        ModelNotFound, DownloadError: an adapter is not found or not downloaded.
    """
    with torch.device("meta"), _Uninitialised():
        model = Florence2(checkpoint.config)
    adapters = [resolve_adapter(adapter) for adapter in adapters]
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    # Packed weights are copied to another layout, so a mapping would only keep pages of the file in memory.
    tensors = _all_tensors(checkpoint, expected, adapters, mapped=packing is None)
    own, num_rows = [name for name in TABLES[1:] if name in tensors], tensors[SHARED].shape[0]
    if own or num_rows != checkpoint.config.text.vocab_size:  # an adapter may have rows for added tokens
        model.config = replace(model.config, text=replace(model.config.text, vocab_size=num_rows))
        with torch.device("meta"), _Uninitialised():
            model.language_model = UntiedBart(model.config.text, own) if own else Bart(model.config.text)
    precision = packing or Precision(dtype or torch.float32, dtype or torch.float32)

    def read(name: str) -> Tensor:
        own_dtype = precision.text if name.startswith("language_model") else precision.tower
        return tensors[_stored_as(name)].read(own_dtype).to(device)

    if packing is None:
        model.load_state_dict({name: read(name) for name in model.state_dict()}, strict=True, assign=True)
        return model.eval()
    # First of all: its table is by far the largest tensor that is ever read as a whole.
    head = pack_head(packing, read(f"language_model.{HEAD}" if HEAD in tensors else SHARED))
    # 8-bit weights are rounded from float32.
    pack_layers(model, packing, (lambda name: tensors[_stored_as(name)].read(torch.float32)) if packing.is_quantized else read)
    # Few rows of the token tables are read at a time, so the tables stay mapped from the file, in its type.
    tables = _all_tensors(checkpoint, expected, adapters, mapped=True)

    def read_table(name: str) -> Tensor:
        stored = tables[_stored_as(name)]
        return stored.read(stored.dtype or precision.text)

    in_file = {name for name in model.state_dict() if _stored_as(name) in TABLES}
    state = {name: read_table(name) if name in in_file else read(name) for name in model.state_dict()}
    model.load_state_dict(state, strict=True, assign=True)
    attach_head(model, packing, head)
    return model.eval()


def unchanged_tensors(checkpoint: Checkpoint) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint by our names, not read yet; with tables of head and decoder only if they differ from the shared one.

    Raises:
        CheckpointError: the weights are damaged, incomplete or of another model.
    """
    return _all_tensors(checkpoint, expected_shapes(checkpoint), (), mapped=True)


def expected_shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """The shapes of a checkpoint's tensors by our names, as its configuration has them."""
    with torch.device("meta"), _Uninitialised():
        return {name: tuple(value.shape) for name, value in Florence2(checkpoint.config).state_dict().items()}


def _all_tensors(
    checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]], adapters: Sequence[Path], *, mapped: bool
) -> dict[str, StoredTensor]:
    """The checkpoint's tensors with all adapters' changes, not read yet; with tables of head and decoder only if they differ."""
    tensors = _base_tensors(checkpoint, mapped, expected)
    for folder in (*checkpoint.adapters, *adapters):
        tensors = open_adapter(folder).applied_to(tensors, is_tied=checkpoint.is_tied)
    return tensors


def _stored_as(name: str) -> str:
    """Our name of the checkpoint's tensor for a name of the model's state."""
    return HEAD if name == f"language_model.{HEAD}" else name


def _base_tensors(checkpoint: Checkpoint, mapped: bool, expected: Mapping[str, tuple[int, ...]]) -> dict[str, StoredTensor]:
    """The checkpoint's tensors by our names, checked against its configuration."""
    stored = open_folder(checkpoint.folder, mapped=mapped)
    tensors = _renamed(checkpoint.folder, stored)
    _check_logits_bias(tensors.pop(LOGITS_BIAS, None))
    _cut_padding(tensors, expected[SHARED])
    _check(checkpoint.folder, tensors, expected, spelled=to_original if any(map(is_original, stored)) else to_native)
    tensors = _tied(tensors)
    tensors.setdefault(TEMPORAL_TABLE, _computed_temporal_table(checkpoint))
    return tensors


def _renamed(folder: Path, stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        ours = to_ours(name)
        if ours in tensors:
            raise CheckpointError(f"{folder} holds one tensor twice, as {tensors[ours].name} and as {name}.")
        tensors[ours] = tensor
        if ours == TRANSPOSED and name.endswith("image_projection"):
            tensors[ours] = replace(tensor, shape=tensor.shape[::-1], read=lambda dtype, tensor=tensor: tensor.read(dtype).T.contiguous())
    return tensors


def _check_logits_bias(bias: StoredTensor | None) -> None:
    """Check that the bias of the original layout, which the model does not have, is zero."""
    if bias is not None and bias.read(torch.float32).any():
        raise CheckpointError(f"{bias.path}: {bias.name} is not zero, which is not supported: expected the zeros of published checkpoints.")


def _cut_padding(tensors: dict[str, StoredTensor], shape: tuple[int, ...]) -> None:
    """Remove the rows that pad a token table to a multiple of 64; they belong to no token."""
    rows = shape[0]
    padded = (-(-rows // PADDED_TO) * PADDED_TO, *shape[1:])
    for name in (*EMBEDDINGS, HEAD):
        table = tensors.get(name)
        if table is not None and table.shape == padded != shape:
            tensors[name] = replace(table, shape=shape, read=lambda dtype, table=table: table.read(dtype)[:rows])


def _check(
    folder: Path, tensors: Mapping[str, StoredTensor], expected: Mapping[str, tuple[int, ...]], *, spelled: Callable[[str], str]
) -> None:
    """Check names and shapes. One error reports all faults, in the names of the file's layout."""
    tables = (*EMBEDDINGS, HEAD)
    missing = [name for name in expected if name not in tensors and name not in (SHARED, TEMPORAL_TABLE)]
    if not any(name in tensors for name in tables):
        missing.append(SHARED)
    shapes = {**expected, **dict.fromkeys(tables, expected[SHARED])}
    unexpected = [tensor.name for name, tensor in tensors.items() if name not in shapes]
    misshapen = [
        f"{tensor.name} is {list(tensor.shape)} instead of {list(shapes[name])}"
        for name, tensor in tensors.items()
        if name in shapes and tensor.shape != shapes[name]
    ]
    faults = [
        *_fault("missing", [spelled(name) for name in missing]),
        *_fault("unexpected", unexpected),
        *_fault("of another shape than config.json says", misshapen),
    ]
    if faults:
        raise CheckpointError(f"The weights in {folder} are not those of its config.json: {'; '.join(faults)}.")


def _fault(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(sorted(names)[:_NAMES_SHOWN])
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return [f"{len(names)} {what} ({shown}{more})"]


def _tied(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors with the shared token table, and with tables of decoder and head only if they differ from it."""
    tensors = dict(tensors)
    encoder = tensors.pop(ENCODER_TABLE, None)
    if SHARED not in tensors:
        decoder = tensors.get(DECODER_TABLE)
        if encoder is not None and decoder is not None and not equal(encoder, decoder):
            raise CheckpointError(f"{decoder.path}: {encoder.name} and {decoder.name} differ, and there is no shared table for prompts.")
        tensors[SHARED] = encoder or decoder or tensors[HEAD]
    return tied_where_equal(tensors)


def _computed_temporal_table(checkpoint: Checkpoint) -> StoredTensor:
    vision = checkpoint.config.vision

    def read(dtype: torch.dtype) -> Tensor:
        return temporal_table(vision.max_temporal_embeddings, vision.embed_dim[-1]).to(dtype)

    return StoredTensor(TEMPORAL_TABLE, (vision.max_temporal_embeddings, vision.embed_dim[-1]), checkpoint.folder, read)
