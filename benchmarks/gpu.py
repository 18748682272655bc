"""What a GPU gets through at base and large size: parts of a request beside their floors, and captions a second with many callers.

Weights are random. The floor of a decoder step is the time in which its weights and its prompts' keys and values are read, at the rate at
which the card copies memory; that of the tower is its matrix products at the rate of a large product. Captions a second are counted over
all of what a caller sees: each caller asks about a picture of its own, decoded and resized on the CPU, and asks again when it has the
answer. ``transformers`` gets the same pictures in batches.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import florence2
from benchmarks import report
from benchmarks.compare import DTYPES, Ask, Own, Reference, picture
from benchmarks.decoder_step import SHAPES
from benchmarks.roofline import PROMPT, step_bytes, tower_operations
from fixtures.checkpoints import write_checkpoint
from florence2.engine.next_tokens import best_tokens
from florence2.model import DecoderCache

IMAGES = (1, 8)
TOKENS = 16
CALLERS = 64
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def milliseconds(run: Callable[[], Any], seconds: float = 0.5) -> float:
    """The median of what a caller waits for, the device's work included."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - started))
    return median(times)


def copy_rate() -> float:
    """Bytes a second that the card reads and writes when it copies."""
    values = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(values)
    return 2 * values.nbytes / (milliseconds(lambda: other.copy_(values)) / 1000)


def product_rate(dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
    return 2 * 8192**3 / (milliseconds(lambda: left @ right) / 1000)


def step(model: Any, tokens: Tensor, cache: DecoderCache) -> None:
    """A step of rows that are ``TOKENS`` long, however often it is taken."""
    cache.rewind([TOKENS] * len(tokens))
    model.decode_step(tokens, cache)


@torch.inference_mode()
def parts(folder: Path, precision: str) -> dict[str, Any]:
    """Milliseconds of the parts of a request, beside their floors."""
    with florence2.load(folder, device="cuda", precision=precision) as engine:
        model, config = engine._scheduler._batch._model, engine.checkpoint.config
        bandwidth, rate = copy_rate(), product_rate(model.dtype)
        source, width = config.vision.num_image_tokens(768, 768) + PROMPT, BYTES[engine.precision]
        figures: dict[str, Any] = {"tower": {}, "step": {}}
        for count in IMAGES:
            pixels = torch.randn(count, 3, 768, 768, device="cuda")
            figures["tower"][str(count)] = {
                "ms": round(milliseconds(lambda pixels=pixels: model.encode_image(pixels)), 3),
                "floor_ms": round(1000 * count * tower_operations(config.vision) / rate, 3),
            }
        features = model.encode_image(torch.randn(1, 3, 768, 768, device="cuda"))
        prompt = torch.randint(3, 50_000, (1, PROMPT), device="cuda")
        figures["prompt_ms"] = round(milliseconds(lambda: model.encode_prompt(features, prompt, [PROMPT])), 3)
        encoded = model.encode_prompt(features, prompt, [PROMPT])
        for rows, num_beams in SHAPES.items():
            cache = model.new_cache(48)
            for beams in num_beams:
                model.admit(cache, encoded, [beams])
            tokens = torch.randint(3, 50_000, (rows,))
            logits = model.decode_step(tokens, cache)
            read = step_bytes(config.text, source, width, 0) + step_bytes(config.text, source, 0, width) * len(num_beams)
            figures["step"][str(rows)] = {
                "ms": round(milliseconds(lambda cache=cache, tokens=tokens: step(model, tokens, cache), 0.25), 3),
                "choosing_ms": round(milliseconds(lambda logits=logits: best_tokens(logits, 6, (), (0, 2)), 0.25), 3),
                "floor_ms": round(1000 * read / bandwidth, 3),
            }
        figures |= {"read_gb_per_s": round(bandwidth / 1e9), "product_tflops": round(rate / 1e12)}
    return figures


def with_peak(work: Callable[[], float]) -> dict[str, float]:
    """What ``work`` gives, captions a second, and the most memory of the card that PyTorch's tensors took in it, in MiB."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, rate = torch.cuda.memory_allocated(), work()
    return {"captions_per_s": rate, "peak_mib": round((torch.cuda.max_memory_allocated() - before) / 2**20)}


def captions(folder: Path, precision: str, num_beams: int, seconds: float) -> float:
    """Captions a second of our engine with many callers."""
    own, ends = Own(folder, precision, "cuda"), time.perf_counter() + 2 + seconds

    def call(number: int) -> list[float]:
        times, given = [], [picture(number, run) for run in range(4)]
        while time.perf_counter() < ends:
            own.engine.run(given[len(times) % 4], "<CAPTION>", num_beams=num_beams, max_new_tokens=TOKENS)
            times.append(time.perf_counter())
        return times

    # Twice as many as take part in a step, so that some always wait.
    callers = min(CALLERS, 2 * 48 // num_beams)
    with ThreadPoolExecutor(callers) as pool:
        done = sorted(moment for times in pool.map(call, range(callers)) for moment in times)
    own.close()
    counted = [moment for moment in done if ends - seconds <= moment <= ends]
    return round(len(counted) / seconds, 1)


@torch.inference_mode()
def captions_by_reference(folder: Path, name: str, num_beams: int, batch: int, seconds: float) -> float:
    """Captions a second of ``transformers``, in batches."""
    reference = Reference(folder, DTYPES[name], "cuda")
    asks = [Ask(number, "<CAPTION>", num_beams, TOKENS) for number in range(batch)]
    reference.answer_batched(asks, 0)
    started, count = time.perf_counter(), 0
    while time.perf_counter() < started + seconds:
        count += len(reference.answer_batched(asks, 1))
    return round(count / (time.perf_counter() - started), 1)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=("base", "large"), default=("base", "large"))
    parser.add_argument("--seconds", type=float, default=8)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = write_checkpoint(Path(folder), size=size)
            own = figures[size] = {"parts": {}, "captions": {}}
            for precision in ("bf16", "fp32"):
                own["parts"][precision] = parts(path, precision)
                print(size, precision, own["parts"][precision], flush=True)
            for num_beams in (1, 3):
                search = own["captions"]["greedy" if num_beams == 1 else "three beams"] = {}
                asked = (path, "bf16", num_beams, arguments.seconds)
                search["ours bf16"] = with_peak(lambda asked=asked: captions(*asked))
                for batch in (1, 48 // num_beams):
                    name, seconds = f"transformers bf16, batches of {batch}", arguments.seconds / 2
                    ask = (path, "transformers bf16", num_beams, batch, seconds)
                    search[name] = with_peak(lambda ask=ask: captions_by_reference(*ask))
                    print(size, num_beams, search, flush=True)
    settings = {"tokens": TOKENS, "prompt": "<CAPTION>", "callers": CALLERS, "weights": "random", "seconds": arguments.seconds}
    print(report.write("gpu", settings, figures))


if __name__ == "__main__":
    main()
