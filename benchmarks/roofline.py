"""How far one request is from what this machine's arithmetic and memory allow.

The floor is computed, not chosen: multiplications of every matrix product at base size over the best rate that a product of that kind
reaches here, plus the bytes of all weights that a decoder step reads over the best rate at which memory is read here. Activations,
norms, softmaxes, copies and Python count nothing in it. Measured beside it, in turn: the same parts of our model.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import report
from fixtures.checkpoints import write_checkpoint
from florence2.engine.precision import choose_packing, choose_precision
from florence2.model import Florence2, Florence2Config, TextConfig, VisionConfig
from florence2.model.cpu import kernels
from florence2.model.cpu.packed import PackedLinear
from florence2.model.cpu.quantized import QuantizedLinear
from florence2.model.precision import Precision
from florence2.weights import load_model, read_checkpoint

PRECISIONS = ("fp32", "bf16", "int8")
PROMPT, BEAMS, TOKENS = 11, 3, 33


def best(run: Callable[[], Any], seconds: float = 1.0) -> float:
    """The shortest of many runs."""
    run()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def matrix_rate(precision: Precision) -> float:
    """Floating-point or integer operations a second of a large product, by the layer that the tower uses."""
    rows, inputs, outputs = 2304, 2048, 512
    weight, hidden = torch.randn(outputs, inputs) / 45, torch.randn(rows, inputs)
    if precision.is_quantized:
        layer = QuantizedLinear(weight, None, rows=rows)
        levels = torch.randint(0, layer.top, (rows, inputs), dtype=torch.uint8)
        arguments = (layer.weight, layer.scales, layer.zero_points, None, 1.0, 0, precision.tower, "none", [], "none")
        run: Callable[[], Any] = lambda: torch.ops.onednn.qlinear_pointwise(levels, 0.1, 128, *arguments)  # noqa: E731
    else:
        packed, given = PackedLinear(weight.to(precision.tower), None, rows=rows), hidden.to(precision.tower)
        run = lambda: packed(given)  # noqa: E731
    return 2 * rows * inputs * outputs / best(run)


def read_rate() -> float:
    """Bytes a second that are read from memory, far more than any cache holds."""
    values = torch.ones(400_000_000 // 4)
    return values.nbytes / best(values.sum)


def tower_operations(config: VisionConfig) -> float:
    """Operations of the matrix products and convolutions of one image of 768 x 768, attention's included."""
    side, channels, total = 768, config.in_channels, 0.0
    for stage, width in enumerate(config.embed_dim):
        side = (side + 2 * config.patch_padding[stage] - config.patch_size[stage]) // config.patch_stride[stage] + 1
        positions = side * side
        total += positions * config.patch_size[stage] ** 2 * channels * width
        linear = positions * width * width * (4 + 2 * config.mlp_ratio)
        window = 2 * positions * config.window_size**2 * width
        channel = 2 * positions * width * (width / config.num_groups[stage])
        depthwise = 4 * positions * 9 * width
        total += config.depths[stage] * (2 * linear + window + channel + depthwise)
        channels = width
    return 2 * (total + (side * side + 1) * channels * config.projection_dim)


def encoder_operations(config: TextConfig, source: int) -> float:
    """Operations of the encoder, and of the decoder's keys and values of what it gives."""
    width = config.d_model
    layer = source * width * (4 * width + 2 * config.encoder_ffn_dim) + 2 * source * source * width
    return 2 * (config.encoder_layers * layer + config.decoder_layers * source * 2 * width * width)


def step_bytes(config: TextConfig, source: int, bytes_per_weight: float, bytes_per_key: float) -> float:
    """Bytes that a decoder step of one request reads: weights, and keys and values of the prompt."""
    width = config.d_model
    weights = config.decoder_layers * (6 * width * width + 2 * width * config.decoder_ffn_dim) + config.vocab_size * width
    return weights * bytes_per_weight + config.decoder_layers * 2 * source * width * bytes_per_key


@torch.inference_mode()
def measured(model: Florence2) -> dict[str, float]:
    """Seconds of the parts of one request, medians."""
    pixels = torch.randn(1, 3, 768, 768)
    prompt = torch.randint(3, 50_000, (1, PROMPT))
    features = model.encode_image(pixels)
    encoded = model.encode_prompt(features, prompt, [PROMPT])

    def encode() -> None:
        model.admit(model.new_cache(BEAMS), model.encode_prompt(features, prompt, [PROMPT]), [BEAMS])

    cache = model.new_cache(BEAMS)
    model.admit(cache, encoded, [BEAMS])
    tokens = torch.randint(3, 50_000, (BEAMS,))

    def time_of(run: Callable[[], Any], repeats: int) -> float:
        times = []
        for _ in range(repeats + 2):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        return median(times[2:])

    steps = time_of(lambda: model.decode_step(tokens, cache), TOKENS)
    return {"tower": time_of(lambda: model.encode_image(pixels), 6), "encoder": time_of(encode, 6), "decoding": steps * TOKENS}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    kernels.prepare()
    # Rates are measured again after the parts, and the larger ones count: a neighbour may have had the processor for a second.
    cpu, bandwidth, figures = torch.device("cpu"), read_rate(), {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = read_checkpoint(write_checkpoint(Path(folder), size="base"))
        config: Florence2Config = checkpoint.config
        source = config.vision.num_image_tokens(768, 768) + PROMPT
        for precision in PRECISIONS:
            numbers = choose_precision(precision, cpu)
            rate = matrix_rate(numbers)
            seconds = measured(load_model(checkpoint, packing=choose_packing(numbers, cpu)))
            rate, bandwidth = max(rate, matrix_rate(numbers)), max(bandwidth, read_rate())
            weight, key = {"fp32": (4, 4), "bf16": (2, 2), "int8": (1, 2)}[precision]
            floor = {
                "tower": tower_operations(config.vision) / rate,
                "encoder": encoder_operations(config.text, source) / rate,
                "decoding": TOKENS * step_bytes(config.text, source, weight, key) / bandwidth,
            }
            total = {"floor": sum(floor.values()), "measured": sum(seconds.values())}
            figures[precision] = {
                "matrix_gflops": round(rate / 1e9, 1),
                "floor_ms": {part: round(value * 1000, 2) for part, value in floor.items()},
                "measured_ms": {part: round(value * 1000, 2) for part, value in seconds.items()},
                "measured_over_floor": {
                    **{part: round(seconds[part] / floor[part], 2) for part in floor},
                    "all": round(total["measured"] / total["floor"], 2),
                },
            }
            print(precision, figures[precision], flush=True)
    settings = {"size": "base", "num_beams": BEAMS, "tokens": TOKENS, "prompt_tokens": PROMPT, "read_gb_per_s": round(bandwidth / 1e9, 1)}
    print(report.write(report.by_processor("roofline"), settings, figures))


if __name__ == "__main__":
    main()
