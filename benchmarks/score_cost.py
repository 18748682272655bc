"""What scores cost a decoder step: the same requests with and without them, in turn, at base size with random weights.

Every token is made a location and every four of them a box, which is more than any real answer scores. Both sides make the same tokens
and read the same answers. What counts is processor time on one thread, for a machine with other work tells little by the clock: of
each step the least of all turns, the reading of the answers in the last one included, and their mean over the steps. That still
swings by some hundredths, so what scores add is measured alone as well: taking the locations out of the logits, keeping them for
every row, and scoring the boxes when an answer is read, each as the least of many repeats.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from benchmarks import report
from fixtures.checkpoints import write_checkpoint
from florence2.engine.answer import Interpreter
from florence2.engine.batch import Batch
from florence2.engine.next_tokens import best_tokens
from florence2.engine.precision import choose_packing, choose_precision
from florence2.engine.request import Request, SharedImage, start_search
from florence2.engine.search import SpecialTokens
from florence2.model import Florence2
from florence2.model.cache import DecoderCache
from florence2.model.cpu import kernels
from florence2.request_options import GenerationOptions
from florence2.tasks import Tokenizer, build_prompt, interpret
from florence2.weights import load_model, read_checkpoint

ENDLESS = SpecialTokens(eos=-1, forced_eos=None)
LOADS = {
    "one request, greedy": (1, 1),
    "one request, three beams": (1, 3),
    "16 requests, greedy": (16, 1),
    "16 requests, three beams": (16, 3),
}


class OnlyLocations:
    """A model that names nothing but places."""

    def __init__(self, model: Florence2, locations: Sequence[int]) -> None:
        self._model, self._locations = model, slice(locations[0], locations[-1] + 1)

    def __getattr__(self, name: str) -> Any:
        """Everything else as the model has it."""
        return getattr(self._model, name)

    def decode_step(self, token_ids: Tensor, cache: DecoderCache) -> Tensor:
        """As the model's, with locations far ahead."""
        logits = self._model.decode_step(token_ids, cache)
        logits[:, self._locations] += 100
        return logits


def seconds_of_steps(model: Any, tokenizer: Tokenizer, features: Tensor, load: tuple[int, int], tokens: int, scores: bool) -> list[float]:
    """Processor time of each step of one turn."""
    prompt = build_prompt("<REGION_PROPOSAL>")
    options = GenerationOptions(num_beams=load[1], max_new_tokens=tokens)
    requests = []
    for _ in range(load[0]):
        search = start_search(options, ENDLESS, tokenizer.location_ids if scores else ())
        read = Interpreter(prompt, tokenizer, (640, 480), frozenset(), scores)
        requests.append(Request(SharedImage(None, features), tokenizer.encode(prompt.sentence), search, read))
    batch = Batch(model, max_rows=load[0] * load[1])
    batch.enter(requests)
    seconds = []
    while batch.requests:
        started = time.process_time()
        batch.step()
        seconds.append(time.process_time() - started)
    results = [request.future.result(0) for request in requests]
    assert all(len(result.boxes) == tokens // 4 and (result.scores is not None) == scores for result in results)
    return seconds


def seconds_added(tokenizer: Tokenizer, vocabulary: int, load: tuple[int, int], tokens: int) -> float:
    """What scores add to a step, by its parts; boxes are spread over the steps of their answer."""
    rows, locations = load[0] * load[1], tokenizer.location_ids
    logits = torch.randn(rows, vocabulary)
    candidates = [partial(best_tokens, logits, 2 * load[1], (), (0,), wanted) for wanted in ((), locations)]
    probabilities = best_tokens(logits, 1, locations=locations).locations
    assert probabilities is not None
    ids = [0, *(locations[number * 977 % 1000] for number in range(tokens - 1))]
    kept = [None, *(probabilities[0].copy() for _ in range(tokens - 1))]
    read = [
        partial(
            interpret,
            build_prompt("<REGION_PROPOSAL>"),
            token_ids=ids,
            log_probabilities=[-1.0] * tokens,
            tokenizer=tokenizer,
            image_size=(640, 480),
            finish_reason="stop",
            scores=scores,
            location_probabilities=kept,
        )
        for scores in (False, True)
    ]
    least = [_least(run) for run in (*candidates, *read, lambda: [probabilities[row].copy() for row in range(rows)])]
    return least[1] - least[0] + least[4] + load[0] * (least[3] - least[2]) / tokens


def _least(run: Callable[[], Any], repeats: int = 300) -> float:
    """The shortest of many runs: short enough to fall between what others do."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


@torch.inference_mode()
def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=41, help="of an answer: its <s> and four for each box")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--loads", type=int, nargs="+", default=list(range(len(LOADS))), help="which of them, by number")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kernels.prepare()
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = read_checkpoint(write_checkpoint(Path(folder), size="base"))
        tokenizer = Tokenizer.load(folder)
        vocabulary = checkpoint.config.text.vocab_size
        for precision in arguments.precisions:
            numbers = choose_precision(precision, torch.device("cpu"))
            packing = choose_packing(numbers, torch.device("cpu"))
            model = OnlyLocations(load_model(checkpoint, dtype=numbers.tower, packing=packing), tokenizer.location_ids)
            (features,) = model.encode_image(torch.randn(1, 3, 768, 768))
            for name, load in [list(LOADS.items())[number] for number in arguments.loads]:
                times: dict[bool, list[list[float]]] = {False: [], True: []}
                for turn in range(arguments.turns):
                    for scores in (False, True) if turn % 2 else (True, False):
                        times[scores].append(seconds_of_steps(model, tokenizer, features, load, arguments.tokens, scores))
                without, with_scores = (mean(map(min, zip(*times[scores], strict=True))) for scores in (False, True))
                figures[f"{precision}, {name}"] = {
                    "without_ms": round(without * 1000, 3),
                    "with_ms": round(with_scores * 1000, 3),
                    "added_alone_us": round((added := seconds_added(tokenizer, vocabulary, load, arguments.tokens)) * 1e6, 1),
                    "added_share": round(added / without, 4),
                }
                print(precision, name, figures[f"{precision}, {name}"], flush=True)
    settings = {"size": "base", "turns": arguments.turns, "tokens": arguments.tokens, "prompt": "<REGION_PROPOSAL>"}
    print(report.write("score_cost", settings, figures))


if __name__ == "__main__":
    main()
