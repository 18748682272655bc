"""What a decoder step costs, by precision and number of rows, beside what it reads: all weights, and the keys and values of its prompts.

The model has base size and random weights, every request 588 positions of image and prompt and some 16 tokens of answer. The time in which
memory is read is the least that a step can take; arithmetic counts nothing in that. Before each step, as the rate of a shared machine
changes all the time, it is measured once more, with more than any cache holds, in huge pages as the weights are. After each step the best
next tokens are chosen of its logits, in turn by the compiled routine and by PyTorch. ``--label`` keeps what was measured before a change
beside what is measured after it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import report
from benchmarks.roofline import PROMPT, step_bytes
from fixtures.checkpoints import write_checkpoint
from florence2.engine.next_tokens import best_by_pytorch, best_tokens
from florence2.engine.precision import choose_packing, choose_precision
from florence2.model import Florence2
from florence2.model.cpu import kernels
from florence2.model.cpu.weight_memory import WeightMemory
from florence2.weights import load_model, read_checkpoint

PRECISIONS = ("fp32", "bf16", "int8")
SHAPES = {1: [1], 3: [3], 16: [1] * 16, 48: [3] * 16}  # rows: beams of each request
FIRST, LEAST_S = 16, 2.5
READ = 100_000_000  # bytes
BYTES = {"fp32": (4, 4), "bf16": (2, 2), "int8": (1, 2)}  # of a weight, of a key


@torch.inference_mode()
def step_ms(model: Florence2, num_beams: list[int]) -> dict[str, float]:
    """Milliseconds of a step and of choosing the next tokens, as medians, the shortest step, and gigabytes a second from memory."""
    cache = model.new_cache(sum(num_beams))
    width, image_tokens = model.config.text.d_model, model.config.vision.num_image_tokens(768, 768)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, image_tokens, width, generator=generator).to(model.dtype)
    encoded = model.encode_prompt(features, torch.randint(3, 50_000, (1, PROMPT), generator=generator), [PROMPT])
    for beams in num_beams:
        model.admit(cache, encoded, [beams])
    tokens = torch.randint(3, 50_000, (sum(num_beams),), generator=generator)
    for _ in range(FIRST):
        model.decode_step(tokens, cache)
    times: list[float] = []
    reading: list[float] = []
    elsewhere = WeightMemory().empty((READ // 8,), torch.int64).zero_()  # read more quickly than of any other type
    choosing: dict[str, list[float]] = {"choosing_ms": [], "choosing_by_pytorch_ms": []}
    ways = (best_tokens, lambda logits, count: best_by_pytorch(logits, count, (), (), ()))
    end = time.perf_counter() + LEAST_S
    while (time.perf_counter() < end and len(times) < 64) or len(times) < 6:
        before = time.perf_counter()
        elsewhere.sum()
        started = time.perf_counter()
        logits = model.decode_step(tokens, cache)
        decoded = time.perf_counter()
        way = len(times) % 2
        ways[way](logits, 2 * max(num_beams))
        list(choosing.values())[way].append(1000 * (time.perf_counter() - decoded))
        times.append(1000 * (decoded - started))
        reading.append(started - before)
    figures = {
        "median_ms": median(times),
        "shortest_ms": min(times),
        **{name: median(values) for name, values in choosing.items()},
        "read_gb_per_s": READ / median(reading) / 1e9,
    }
    return {name: round(value, 2) for name, value in figures.items()}


def measured(precision: str, folder: Path) -> dict[str, dict[str, float]]:
    """Milliseconds of a step of every number of rows, and the megabytes that it reads."""
    cpu, checkpoint = torch.device("cpu"), read_checkpoint(folder)
    model = load_model(checkpoint, packing=choose_packing(choose_precision(precision, cpu), cpu))
    weight, key = BYTES[precision]
    source = checkpoint.config.vision.num_image_tokens(768, 768) + PROMPT
    figures: dict[str, dict[str, float]] = {}
    for rows, num_beams in SHAPES.items():
        times = step_ms(model, num_beams)
        read = step_bytes(checkpoint.config.text, source, weight, 0) + step_bytes(checkpoint.config.text, source, 0, key) * len(num_beams)
        figures[str(rows)] = {**times, "read_mb": round(read / 1e6, 1)}
        print(precision, rows, figures[str(rows)], flush=True)
    return figures


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label", default="after", help="the name of this measurement in the results")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    arguments = parser.parse_args()
    kernels.prepare()
    name = report.by_processor("decoder_step")
    path = report.RESULTS / f"{name}.json"
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.is_file() else {}
    own = figures.setdefault(arguments.label, {})
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), size="base")
        for precision in arguments.precisions:
            own[precision] = measured(precision, Path(folder))
    settings = {"size": "base", "prompt_tokens": PROMPT, "beams_of_requests": SHAPES}
    print(report.write(name, settings, figures))


if __name__ == "__main__":
    main()
