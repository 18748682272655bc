"""What LoRA adapters cost beside the weights of their base, and what merged copies of it would cost, at base size with random weights.

Beside the weights: processor time on one thread of a decoder step, of a prompt's encoding and of an image's, with and without adapters of
all linear layers, in turn; of all turns the least counts, for a machine with other work tells little by the clock. A step with several
adapters is held against as many steps of merged copies, each with its share of the rows (times of the base). Merged: the time from an
adapter's folder to a model that has it, and the bytes of the weights that it changes, which a copy would have of its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from fixtures.adapters import TEXT, VISION, write_adapter
from fixtures.checkpoints import checkpoint_config, write_checkpoint
from florence2.engine.precision import choose_packing, choose_precision
from florence2.model import DecoderCache, EncodedPrompts, Florence2
from florence2.model.adapters import ALL, ModelAdapter, Route, Routes, routes_of
from florence2.model.adapting import adapt_layers, fit_adapter
from florence2.model.cpu import kernels
from florence2.weights import Checkpoint, load_model, read_checkpoint
from florence2.weights.low_rank import read_factors

CPU = torch.device("cpu")
ROWS = (1, 3, 12, 48)
RANKS = (8, 32)
PROMPT = [0, 47, 82, 99, 100, 2]
NUM_SHARING = 4  # adapters in one step


def least(runs: Mapping[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """The least processor time of each run, in milliseconds; they take turns."""
    found = dict.fromkeys(runs, float("inf"))
    for turn in range(turns + 1):
        for name, run in runs.items():
            started = time.process_time()
            run()
            if turn:  # the first one sets libraries up
                found[name] = min(found[name], time.process_time() - started)
    return {name: round(seconds * 1000, 3) for name, seconds in found.items()}


def steps(model: Florence2, adapters: Mapping[int, list[ModelAdapter]], encoded: EncodedPrompts, turns: int) -> dict[str, Any]:
    """Times of decoder steps: of the base, of one adapter by its rank, of the base and one in turn, and of several."""
    figures: dict[str, Any] = {}
    for rows in ROWS:
        cache = model.new_cache(rows)
        one = EncodedPrompts(encoded.hidden, encoded.lengths)
        for _ in range(rows):
            model.admit(cache, one, [1])
        first, several = adapters[RANKS[0]][0], adapters[RANKS[0]]
        routes: dict[str, Routes] = {"base": ()}
        routes.update({f"rank {rank}": routes_of([adapters[rank][0]] * rows, CPU) for rank in RANKS})
        if rows > 1:
            routes["every other row rank 8"] = routes_of([first if row % 2 else None for row in range(rows)], CPU)
        if rows >= NUM_SHARING:
            routes[f"{NUM_SHARING} adapters rank 8"] = routes_of([several[row % NUM_SHARING] for row in range(rows)], CPU)
        figures[f"{rows} row{'s' if rows > 1 else ''}"] = least({name: _step(model, cache, route) for name, route in routes.items()}, turns)
    for rows in (12, 48):  # what merged copies would take for the same rows, from the times of the base alone
        share = figures[f"{rows // NUM_SHARING} rows"]["base"]
        figures[f"{rows} rows"][f"{NUM_SHARING} merged copies"] = round(NUM_SHARING * share, 3)
    return figures


def _step(model: Florence2, cache: DecoderCache, routes: Routes) -> Callable[[], object]:
    tokens = torch.full((cache.num_rows,), 99)

    def run() -> None:
        with model.routing.over(routes):
            model.decode_step(tokens, cache)

    return run


def prompts_and_images(model: Florence2, adapters: Mapping[int, list[ModelAdapter]], tower: ModelAdapter, turns: int) -> dict[str, Any]:
    """Times of a prompt's encoding and of an image's."""
    pixels = torch.randn(1, 3, 768, 768)
    features, ids = model.encode_image(pixels), torch.tensor([PROMPT])

    def over(routes: Routes, work: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            with model.routing.over(routes):
                work()

        return run

    prompt = {"base": over((), lambda: model.encode_prompt(features, ids, [len(PROMPT)]))}
    for rank in RANKS:
        prompt[f"rank {rank}"] = over(routes_of([adapters[rank][0]], CPU), lambda: model.encode_prompt(features, ids, [len(PROMPT)]))
    image = {"base": over((), lambda: model.encode_image(pixels)), "rank 8": over((Route(tower, ALL),), lambda: model.encode_image(pixels))}
    return {"prompt": least(prompt, turns), "image": least(image, max(2, turns // 4))}


def seconds(work: Callable[[], object]) -> float:
    """How long something takes by the clock."""
    started = time.perf_counter()
    work()
    return round(time.perf_counter() - started, 3)


def measured(checkpoint: Checkpoint, folders: Mapping[int, list[Path]], tower: Path, precision: str, turns: int) -> dict[str, Any]:
    """All figures in one precision."""
    numbers = choose_precision(precision, CPU)
    load = {"dtype": numbers.tower, "packing": choose_packing(numbers, CPU)}
    model = load_model(checkpoint, **load)
    adapt_layers(model)
    adapters = {rank: [fit_adapter(model, read_factors(checkpoint, folder)) for folder in folders[rank]] for rank in RANKS}
    add_s = seconds(lambda: fit_adapter(model, read_factors(checkpoint, folders[RANKS[0]][0])))
    width = 1 if numbers.is_quantized else torch.finfo(numbers.text).bits // 8
    changed = sum(update.up.shape[1] * update.down.shape[1] for update in adapters[RANKS[0]][0].updates.values())
    encoded = model.encode_prompt(model.encode_image(torch.randn(1, 3, 768, 768)), torch.tensor([PROMPT]), [len(PROMPT)])
    figures = {
        "step_ms": steps(model, adapters, encoded, turns),
        **prompts_and_images(model, adapters, fit_adapter(model, read_factors(checkpoint, tower)), turns),
        "adapter_mb": {f"rank {rank}": round(adapters[rank][0].num_bytes / 1e6, 2) for rank in RANKS},
        "merged_copy_mb": round(changed * width / 1e6, 1),
        "add_s": add_s,
    }
    del model
    return {**figures, "merge_s": seconds(lambda: load_model(checkpoint, adapters=[folders[RANKS[0]][0]], **load))}


@torch.inference_mode()
def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "int8"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kernels.prepare()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        config = checkpoint_config("base")
        checkpoint = read_checkpoint(write_checkpoint(Path(folder) / "base", size="base"))
        folders = {
            rank: [
                write_adapter(Path(folder) / f"{rank}-{number}", config, targets=TEXT, rank=rank, seed=number, scale=0.01)
                for number in range(NUM_SHARING if rank == RANKS[0] else 1)
            ]
            for rank in RANKS
        }
        tower = write_adapter(Path(folder) / "tower", config, targets=f"{TEXT}|{VISION}", rank=8, scale=0.01)
        for precision in arguments.precisions:
            figures[precision] = measured(checkpoint, folders, tower, precision, arguments.turns)
            print(precision, figures[precision], flush=True)
    settings = {"size": "base", "turns": arguments.turns, "ranks": RANKS, "layers": "all linear layers of the text model"}
    print(report.write("adapters", settings, figures))


if __name__ == "__main__":
    main()
