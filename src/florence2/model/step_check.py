"""The compiled decoder step held against PyTorch on decoders of one layer, before it is used. Knows nothing of compilers or checkpoints."""

from __future__ import annotations

import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence2.model.attention import KeyLengths
from florence2.model.cache import Step, StepSize
from florence2.model.cpu.panels import PanelLinear
from florence2.model.cpu.routines import Kernels
from florence2.model.decoder_step import DecoderStep, StepEmbedding, StepLayer

logger = logging.getLogger(__name__)

VOCABULARY, HEADS, LENGTHS, SOURCES, BEAMS = 83, 2, (3, 7, 7, 1, 1, 1, 1, 1), (21, 37), (3, 5)
TABLES = {torch.bfloat16: torch.bfloat16, torch.int8: torch.float16}  # of the head, from which half of the logits are computed again
# Of random weights, where a step ends in numbers around 1: what rounding the weights may change.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.int8: 0.2}


@cache
def is_sound(kernels: Kernels, dtype: torch.dtype) -> bool:
    """Whether the kernels compute steps as PyTorch does, with weights of this type."""
    with torch.inference_mode():
        sound = all(deviation(kernels, dtype, width) <= TOLERANCE[dtype] for width in (32, 64))
    if not sound:
        logger.info("decoder steps are computed by PyTorch: the compiled ones with weights in %s differ from its own", dtype)
    return sound


def deviation(kernels: Kernels, dtype: torch.dtype, head_width: int) -> float:
    """The largest difference of a logit from PyTorch's, with heads of this width; it may be NaN."""
    generator = torch.Generator().manual_seed(0)
    width = HEADS * head_width
    shapes = {"qkv": (3 * width, width), **dict.fromkeys(("out", "cross_query", "cross_out"), (width, width))}
    shapes |= {"fc1": (2 * width, width), "fc2": (width, 2 * width), "head": (VOCABULARY, width)}
    weights = {name: torch.randn(shape, generator=generator) * shape[1] ** -0.5 for name, shape in shapes.items()}
    biases = {name: torch.randn(shape[0], generator=generator) for name, shape in shapes.items() if name != "head"}
    layers = {name: PanelLinear(weights[name], biases.get(name), dtype, kernels) for name in shapes}
    layer = StepLayer(
        *(layers["qkv"], layers["out"], nn.LayerNorm(width), layers["cross_query"], layers["cross_out"], nn.LayerNorm(width)),
        *(layers["fc1"], layers["fc2"], nn.LayerNorm(width)),
    )
    table = weights["head"].to(TABLES[dtype]) if dtype in TABLES else None
    positions = torch.randn(max(LENGTHS), width, generator=generator)
    embedding = StepEmbedding(weights["head"].to(TABLES.get(dtype, dtype)), positions, width**0.5)
    compiled = DecoderStep(kernels, [layer], embedding, nn.LayerNorm(width), layers["head"], HEADS, table, VOCABULARY // 2)
    step = _step(head_width, generator, compiled.key_dtype)
    token_ids = torch.randint(VOCABULARY, (len(LENGTHS),), generator=generator)
    embedded = embedding.table[token_ids].float() * embedding.scale + positions[step.positions]
    return float((compiled(token_ids, step) - _logits(embedded, step, weights, biases)).abs().max())


def _step(head_width: int, generator: torch.Generator, key_dtype: torch.dtype) -> Step:
    """Two requests with several rows, which have histories of different lengths."""
    rows, device = len(LENGTHS), torch.device("cpu")
    self_kv = torch.randn(1, 2, rows, max(LENGTHS), HEADS, head_width, generator=generator).to(key_dtype)
    cross_kv = torch.randn(1, 2, len(SOURCES), HEADS, max(SOURCES), head_width, generator=generator).to(key_dtype)
    lengths, sources = KeyLengths.of(LENGTHS, max(LENGTHS), device), KeyLengths.of(SOURCES, max(SOURCES), device)
    groups = torch.tensor([(0, BEAMS[0]), BEAMS], dtype=torch.int32)
    size = StepSize(rows, len(SOURCES), max(BEAMS), max(LENGTHS), max(SOURCES))
    return Step(size, self_kv, cross_kv, lengths.lengths.long() - 1, lengths, sources, None, None, groups)


def _logits(embedded: Tensor, step: Step, weights: dict[str, Tensor], biases: dict[str, Tensor]) -> Tensor:
    """What PyTorch makes of a step, with the cache left as it is."""

    def apply(name: str, hidden: Tensor) -> Tensor:
        return F.linear(hidden, weights[name], biases.get(name))

    def norm(hidden: Tensor) -> Tensor:
        return F.layer_norm(hidden, hidden.shape[-1:])

    def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Of one row, ``[width]``, to keys and values ``[heads, positions, head_width]``."""
        query = query.view(HEADS, 1, -1)  # PyTorch's own routine would wake all threads for these few numbers
        return ((query @ keys.transpose(1, 2) * query.shape[-1] ** -0.5).softmax(dim=-1) @ values).flatten()

    hidden = norm(embedded)
    query, key, value = apply("qkv", hidden).chunk(3, dim=-1)
    mixed = []
    for row, length in enumerate(LENGTHS):
        known = step.self_kv[0, :, row, : length - 1].float()
        new = torch.stack([key[row], value[row]]).view(2, 1, HEADS, -1)
        mixed.append(attend(query[row], *torch.cat([known, new], dim=1).transpose(1, 2)))
    hidden = norm(hidden + apply("out", torch.stack(mixed)))
    query = apply("cross_query", hidden)
    slots = [slot for slot, count in enumerate(BEAMS) for _ in range(count)]
    mixed = [attend(query[row], *step.cross_kv[0, :, slot, :, : SOURCES[slot]].float()) for row, slot in enumerate(slots)]
    hidden = norm(hidden + apply("cross_out", torch.stack(mixed)))
    hidden = norm(hidden + apply("fc2", F.gelu(apply("fc1", hidden))))
    return apply("head", hidden)
