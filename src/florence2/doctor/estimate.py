"""Seconds of one image with florence-2-base on this processor, from a few of its layers.

The tower's stages are measured with one block each and counted as often as the model has them; the text model is whole. Weights are zeros,
from a file without content: how long a product takes does not depend on its numbers. In: a precision. Out: an ``Estimate``.
"""

from __future__ import annotations

import json
import math
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import nn

from florence2.doctor.report import Estimate
from florence2.engine.precision import choose_packing
from florence2.model.config import Florence2Config, TextConfig, VisionConfig
from florence2.model.florence2 import Florence2
from florence2.model.precision import Precision
from florence2.weights.checkpoint import Checkpoint
from florence2.weights.load import expected_shapes, load_model
from florence2.weights.names import to_native

SIZE, PROMPT = 768, 10
BEAMS, TOKENS = 3, 20
STEPS = 8
SHORT_S = 1.0  # what takes longer is not measured a second time


def estimate(precision: Precision, known: Checkpoint) -> Estimate:
    """Measure; a few seconds on a processor of two cores.

    Args:
        precision: what the model computes in, on a CPU.
        known: any checkpoint, for what is read of a checkpoint besides its dimensions.

    Raises:
        OSError: there is no folder for temporary files.
    """
    depths = VisionConfig().depths
    config = Florence2Config(VisionConfig(depths=(1,) * len(depths)), TextConfig())
    with tempfile.TemporaryDirectory(prefix="florence2-doctor-") as folder:
        checkpoint = replace(known, folder=Path(folder), config=config, adapters=(), is_tied=True)
        write_zeros(Path(folder) / "model.safetensors", {to_native(name): shape for name, shape in expected_shapes(checkpoint).items()})
        model = load_model(checkpoint, dtype=precision.tower, packing=choose_packing(precision, torch.device("cpu")))
        with torch.inference_mode():
            tower_s = _tower_seconds(model, depths)
            encoder_s, step_s = _text_seconds(model)
    return Estimate("florence-2-base", precision.name, TOKENS, BEAMS, tower_s, encoder_s, step_s)


def write_zeros(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write a safetensors file of zeros in float16, which takes no room where files may have holes."""
    header, size = {}, 0
    for name, shape in shapes.items():
        begin, size = size, size + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, size]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size)


def _tower_seconds(model: Florence2, depths: tuple[int, ...]) -> float:
    """Of the whole tower: one pass, its blocks counted by how many of them a stage has."""
    pixels = torch.zeros(1, 3, SIZE, SIZE)
    begun: list[float] = []
    blocks = [0.0] * len(depths)

    def begin(*_: object) -> None:
        begun.append(time.perf_counter())

    def ender(stage: int) -> Callable[[nn.Module, object, object], None]:
        def end(*_: object) -> None:
            blocks[stage] = time.perf_counter() - begun.pop()

        return end

    for stage, modules in enumerate(model.vision_tower.blocks):
        block = modules[0]  # type: ignore[index]
        block.register_forward_pre_hook(begin)
        block.register_forward_hook(ender(stage))

    def run() -> float:
        whole = _seconds(lambda: model.encode_image(pixels))
        return whole + sum((depth - 1) * block for depth, block in zip(depths, blocks, strict=True))

    first = run()
    return first if first > SHORT_S else run()


def _text_seconds(model: Florence2) -> tuple[float, float]:
    """Of the encoder with what prepares decoding, and of one step."""
    text = model.config.text
    features = torch.zeros(1, model.config.vision.num_image_tokens(SIZE, SIZE), text.d_model, dtype=model.dtype)
    prompt = torch.full((1, PROMPT), 5)
    cache = model.new_cache(BEAMS)

    def encode() -> None:
        model.admit(cache, model.encode_prompt(features, prompt, [PROMPT]), [BEAMS])

    encoder_s = _seconds(encode)
    tokens = torch.full((BEAMS,), 5)
    steps = [_seconds(lambda: model.decode_step(tokens, cache)) for _ in range(STEPS)]
    return encoder_s, median(steps[2:])


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
