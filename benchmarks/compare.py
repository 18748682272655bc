"""Ours against ``transformers``, with the same random weights of full size, the same images and the same number of tokens, in turn.

Every case is what a caller waits for: from a picture to the tokens of an answer, with preprocessing and tokenizing on both sides. The
contenders take turns in one process, so that a machine's good and bad moments meet them all; what is reported is the median of the
repeats and the ratio of medians. Peak memory and the time to be ready are measured in processes of their own.

Random weights end their answers anywhere, so both sides are told how many tokens to make.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

import florence2
from benchmarks import report
from fixtures.checkpoints import reference_model, write_checkpoint
from florence2.engine.precision import choose_precision
from florence2.model.cpu.packed import has_bf16_products

DTYPES = {"transformers fp32": torch.float32, "transformers bf16": torch.bfloat16}
TAGS = ["<CAPTION>", "<OD>", "<DENSE_REGION_CAPTION>", "<OCR_WITH_REGION>", "<REGION_PROPOSAL>"]
Times = dict[str, list[float]]
_RUNS = itertools.count()  # over all cases, so that no picture comes twice


@dataclass(frozen=True)
class Contest:
    """Who is compared on a device, and where the results go: those of devices of each kind stand beside each other.

    Where no instruction multiplies bfloat16, PyTorch emulates it so slowly that ``transformers`` has no use for it, and ``auto`` is fp32.

    Attributes:
        device: "cpu" or "cuda".
        result: the name of the results.
        precisions: those of ours.
        references: those of ``transformers``, the fastest last.
    """

    device: str
    result: str
    precisions: tuple[str, ...]
    references: tuple[str, ...]

    @classmethod
    def on(cls, device: str) -> Contest:
        """Who is compared on this device of this machine."""
        if device != "cpu":
            return cls(device, "compare_gpu", ("auto", "fp32"), tuple(DTYPES))
        if has_bf16_products():
            return cls(device, "compare", ("auto", "fp32", "int8"), tuple(DTYPES))
        return cls(device, "compare_without_bf16", ("auto", "bf16", "int8"), tuple(DTYPES)[:1])

    def model(self, name: str, folder: Path) -> Own | Reference:
        """One of them, ready to answer."""
        return Reference(folder, DTYPES[name], self.device) if name in DTYPES else Own(folder, name.removeprefix("ours "), self.device)

    @property
    def names(self) -> list[str]:
        """All of them, as the results call them."""
        return [*(f"ours {precision}" for precision in self.precisions), *self.references]

    @property
    def fast(self) -> tuple[str, ...]:
        """Those that are asked what takes long: of ours ``auto`` and ``int8``, and the fastest of ``transformers``."""
        return (*(f"ours {precision}" for precision in self.precisions if precision in ("auto", "int8")), self.references[-1])


@dataclass(frozen=True)
class Ask:
    """One request: whose image, which prompt, how it is searched for and how long its answer is."""

    image: int
    prompt: str = "<OD>"
    num_beams: int = 3
    tokens: int = 33


def picture(number: int, run: int) -> Image.Image:
    """A picture of 640 x 480, different for every number and run."""
    rng = np.random.default_rng([number, run])
    return Image.fromarray(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8))


class Own:
    """Our engine as it comes. Requests go in together; every run has pictures of its own, so none is still encoded from another."""

    def __init__(self, folder: Path, precision: str, device: str) -> None:
        self.engine = florence2.load(folder, device=device, precision=precision)
        # No token ends an answer, so that each is as long as was asked for.
        maker = self.engine._maker
        endless = replace(maker.checkpoint.generation, eos_token_id=-1, forced_eos_token_id=None)
        self.engine._maker = replace(maker, checkpoint=replace(maker.checkpoint, generation=endless))

    def answer(self, asks: Sequence[Ask], run: int) -> list[int]:
        by_image: dict[int, list[Ask]] = {}
        for ask in asks:
            by_image.setdefault(ask.image, []).append(ask)
        futures = []
        for number, group in by_image.items():
            for options in dict.fromkeys((ask.num_beams, ask.tokens) for ask in group):
                prompts = [ask.prompt for ask in group if (ask.num_beams, ask.tokens) == options]
                futures += self.engine.submit_many(picture(number, run), prompts, num_beams=options[0], max_new_tokens=options[1])
        for future in futures:
            future.add_done_callback(lambda _: release_threads())  # in the engine's thread
        wait(futures)
        return sorted(len(future.result().token_ids) for future in futures)

    def close(self) -> None:
        self.engine.close()


class Reference:
    """``transformers``: one request after another, as its ``generate`` takes them."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: str) -> None:
        from transformers import AutoProcessor

        self.model = reference_model(folder).to(device, dtype)
        self.processor: Any = AutoProcessor.from_pretrained(folder)
        self.dtype = dtype

    @torch.inference_mode()
    def answer(self, asks: Sequence[Ask], run: int) -> list[int]:
        return sorted(self._one(ask, run) for ask in asks)

    def _one(self, ask: Ask, run: int) -> int:
        return self._made([picture(ask.image, run)], [ask])[0]

    @torch.inference_mode()
    def answer_batched(self, asks: Sequence[Ask], run: int) -> list[int]:
        """All in one ``generate``, which takes requests of one length and one search only."""
        return self._made([picture(ask.image, run) for ask in asks], asks)

    def _made(self, pictures: Sequence[Image.Image], asks: Sequence[Ask]) -> list[int]:
        inputs = self.processor(images=list(pictures), text=[ask.prompt for ask in asks], return_tensors="pt", padding=True)
        inputs = inputs.to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        ids = self.model.generate(**inputs, num_beams=asks[0].num_beams, max_new_tokens=asks[0].tokens, min_new_tokens=asks[0].tokens)
        return [ids.cpu().shape[1] - 1] * len(asks)

    def close(self) -> None:
        pass


def release_threads() -> None:
    """Let PyTorch's helpers of the calling thread go.

    Those of one contender would slow down the next: where there are more of them than cores, all of them sleep between operations.
    """
    with contextlib.suppress(OSError, AttributeError):  # another OpenMP
        ctypes.CDLL("libgomp.so.1").omp_pause_resource_all(1)


def take_turns(contenders: dict[str, Callable[[int], list[int]]], repeats: int, lengths: list[int]) -> Times:
    """Seconds of every run after a first one that counts nothing."""
    seconds: Times = {name: [] for name in contenders}
    for number in range(repeats + 1):
        run = next(_RUNS)
        for name in (list(contenders), list(contenders)[::-1])[number % 2]:
            gc.collect()
            started = time.perf_counter()
            made = contenders[name](run)
            release_threads()
            if number:
                seconds[name].append(time.perf_counter() - started)
            if made != lengths:
                raise SystemExit(f"{name} made answers of {made} tokens instead of {lengths}")
    return seconds


def case(models: dict[str, Any], asks: Sequence[Ask], repeats: int, batched: Sequence[str] = ()) -> dict[str, Any]:
    """Times of one case, and what they are to the fastest reference and to each."""
    contenders: dict[str, Callable[[int], list[int]]] = {
        name: lambda run, model=model: model.answer(asks, run) for name, model in models.items()
    }
    contenders |= {f"{name}, one batch": lambda run, name=name: models[name].answer_batched(asks, run) for name in batched}
    seconds = take_turns(contenders, repeats, sorted(ask.tokens for ask in asks))
    medians = {name: median(values) for name, values in seconds.items()}
    ratios = {
        name: {other: round(medians[other] / medians[name], 2) for other in medians if other.startswith("transformers")}
        for name in medians
        if name.startswith("ours")
    }
    figures = {"requests": len(asks), "ms": {name: report.spread(values) for name, values in seconds.items()}, "times_faster": ratios}
    print(f"   {', '.join(f'{name} {value:.2f} s' for name, value in medians.items())}\n   {ratios}", flush=True)
    return figures


def measure_base(contest: Contest, folder: Path, repeats: int, *, with_many: bool) -> dict[str, Any]:
    """All cases at base size, with or without those of many requests, which take the reference minutes."""
    models: dict[str, Any] = {name: contest.model(name, folder) for name in contest.names}
    fast = {name: model for name, model in models.items() if name in contest.fast}
    figures = {}
    for num_beams in (3, 1):
        for tokens in (33, 128):
            name = f"base, one request, {'3 beams' if num_beams == 3 else 'greedy'}, {tokens} tokens"
            print(name, flush=True)
            figures[name] = case(models, [Ask(1, num_beams=num_beams, tokens=tokens)], repeats)
    several: list[tuple[str, list[Ask], Sequence[str]]] = [
        ("base, five tasks on one image, 3 beams, 33 tokens", [Ask(1, tag) for tag in TAGS], [])
    ]
    if with_many:
        several = [
            ("base, 16 requests at once, 16 images, 3 beams, 33 tokens", [Ask(number) for number in range(16)], contest.references[-1:]),
            *several,
            ("base, mixed load: 12 requests, 6 images, greedy and 3 beams, 8 to 128 tokens", mixed(), []),
        ]
    for name, asks, batched in several:
        print(name, flush=True)
        figures[name] = case(fast, asks, max(1, repeats // 2), batched)
    for model in models.values():
        model.close()
    return figures


def mixed() -> list[Ask]:
    """Short and long answers, greedy and beams, two questions an image."""
    lengths = (8, 128, 16, 33, 64, 12, 100, 24, 8, 48, 33, 20)
    return [Ask(number // 2, TAGS[number % 5], 3 if number % 3 else 1, length) for number, length in enumerate(lengths)]


def measure_large(contest: Contest, folder: Path, repeats: int) -> dict[str, Any]:
    """One request at large size."""
    models: dict[str, Any] = {name: contest.model(name, folder) for name in dict.fromkeys((*contest.fast, *contest.references))}
    figures = {}
    for num_beams in (3, 1):
        name = f"large, one request, {'3 beams' if num_beams == 3 else 'greedy'}, 33 tokens"
        print(name, flush=True)
        figures[name] = case(models, [Ask(1, num_beams=num_beams)], max(1, repeats // 2))
    for model in models.values():
        model.close()
    return figures


def process(contest: Contest, kind: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Peak memory, time to be ready and time to the first answer, each of a new process that answers twice."""
    runs = []
    for _ in range(repeats + 1):
        words = ["--device", contest.device, "--alone", kind, "--folder", str(folder)]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.compare", *words],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "STARTED": str(time.time())},
        )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    # The first run brings the file into the system's cache, for all that follow.
    return {key: round(median(run[key] for run in runs[1:]), 3) for key in runs[0]}


def alone(contest: Contest, kind: str, folder: Path) -> None:
    """What ``process`` starts."""
    started = float(os.environ["STARTED"])
    model = contest.model(kind, folder)
    ready = time.time() - started
    loaded = peak_mib()
    model.answer([Ask(1)], 0)
    first = time.time() - started
    model.answer([Ask(2)], 1)
    figures = {"ready_s": ready, "first_answer_s": first, "loaded_mib": loaded, "peak_mib": peak_mib()}
    if contest.device == "cuda":
        figures["peak_gpu_mib"] = torch.cuda.max_memory_reserved() / 2**20
    print(json.dumps(figures))


def peak_mib() -> float:
    """The most memory that this process has held; unlike ``ru_maxrss`` it knows nothing of the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--skip-large", action="store_true")
    parser.add_argument("--skip-many", action="store_true", help="leave out sixteen requests at once and the mixed load")
    parser.add_argument("--skip-processes", action="store_true", help="leave out memory and the time to be ready")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    contest = Contest.on(arguments.device)
    if arguments.alone:
        alone(contest, arguments.alone, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        base = write_checkpoint(Path(folder) / "base", size="base")
        print("processes", flush=True)
        processes = {kind: process(contest, kind, base, 2) for kind in contest.names if not arguments.skip_processes}
        for kind, values in processes.items():
            print(f"   {kind}: {values}", flush=True)
        figures = {"cases": measure_base(contest, base, arguments.repeats, with_many=not arguments.skip_many), "processes": processes}
        settings = {"repeats": arguments.repeats, "weights": "random", "stored": "float32 safetensors"}
        settings["auto"] = choose_precision("auto", torch.device(contest.device)).name
        print(report.write(contest.result, settings, figures), flush=True)
        if not arguments.skip_large:
            gc.collect()
            large = write_checkpoint(Path(folder) / "large", size="large")
            figures["cases"] |= measure_large(contest, large, arguments.repeats)
            print(report.write(contest.result, settings, figures))


if __name__ == "__main__":
    main()
