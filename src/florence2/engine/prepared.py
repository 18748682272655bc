"""A checkpoint made ready to compute: on its device, in its precision, packed or recorded. Knows nothing of requests."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from florence2.engine.batch import Model
from florence2.engine.cuda_graphs import CudaGraphs, GraphedModel
from florence2.engine.device import choose_device
from florence2.engine.memory import stored_bytes
from florence2.engine.precision import choose_packing, choose_precision
from florence2.engine.request_maker import special_tokens
from florence2.engine.threads import bound_threads
from florence2.errors import CheckpointError
from florence2.model import Florence2
from florence2.model.cpu import kernels
from florence2.model.cpu.heap import give_back_memory
from florence2.model.gpu.attaching import attach_fused_step
from florence2.model.refined_head import refine_head
from florence2.tasks.tokenizer import Tokenizer
from florence2.weights import load_model, read_checkpoint, resolve, resolve_adapter
from florence2.weights.mending import discard_damaged
from florence2.weights.source import adapter_names
from florence2.weights.vocabulary import read_tokenizer

if TYPE_CHECKING:
    from florence2.weights.checkpoint import Checkpoint

Read = TypeVar("Read")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What an engine computes with.

    Attributes:
        checkpoint: the settings of the checkpoint.
        model: its weights.
        tokenizer: its vocabulary, with the tokens of adapters.
        precision: "fp32", "bf16", "fp16" or "int8".
        weight_bytes: the memory of the weights.
    """

    checkpoint: Checkpoint
    model: Model
    tokenizer: Tokenizer
    precision: str
    weight_bytes: int


def prepare(
    name: str | os.PathLike[str], device: str | torch.device, precision: str, adapters: Sequence[str | os.PathLike[str]]
) -> Prepared:
    """A checkpoint ready to compute; arguments and errors are those of ``florence2.load``."""
    device = choose_device(device)
    bound_threads()
    chosen = choose_precision(precision, device)
    packing = choose_packing(chosen, device)
    if device.type == "cpu":
        kernels.prepare()

    def read(folder: Path, folders: Sequence[Path]) -> tuple[Checkpoint, Florence2, Tokenizer]:
        checkpoint = read_checkpoint(folder)
        model = load_model(checkpoint, device=device, dtype=chosen.tower, packing=packing, adapters=folders)
        return checkpoint, model, read_tokenizer(checkpoint, folders, model.config.text.vocab_size)

    checkpoint, model, tokenizer = _read_whole(read, name if isinstance(name, str) else Path(name), adapter_names(adapters))
    if packing is None and not chosen.is_exact:
        refine_head(model)
    give_back_memory()
    logger.info("%s from %s on %s in %s", name, checkpoint.folder, device, chosen.name)
    weight_bytes = stored_bytes(model.modules())
    runner: Model = model
    if device.type == "cuda":
        model.language_model.fuse_projections()
        attach_fused_step(model)
        size, beams = (checkpoint.image.height, checkpoint.image.width), (1, checkpoint.generation.num_beams)
        forced = special_tokens(checkpoint.generation).forced
        runner = GraphedModel(model, CudaGraphs(device), image_size=size, num_beams=beams, forced=forced)
    return Prepared(checkpoint, runner, tokenizer, chosen.name, weight_bytes)


def _read_whole(read: Callable[[Path, Sequence[Path]], Read], name: str | Path, adapters: Sequence[str | Path]) -> Read:
    """What ``read`` makes of the folders; where files of the hub's cache are damaged, once more after they were fetched anew."""

    def folders() -> tuple[list[Path], Path]:
        return [resolve_adapter(adapter) for adapter in adapters], resolve(name)  # adapters are small, and wrong more often

    more, folder = folders()
    try:
        return read(folder, more)
    except CheckpointError:
        damaged = [discard_damaged(one) for one in (folder, *more)]
        if not any(damaged):
            raise
    more, folder = folders()
    return read(folder, more)
