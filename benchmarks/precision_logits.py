"""What fewer bits change in the logits of full-size models with random weights, against float32.

Each precision sees the same pictures and prompts, and the tokens that float32 chooses greedily. This compares precisions and forecasts no
answers of trained weights. What ``bf16`` and ``int8`` mean depends on the processor (``florence2.engine.precision``); the results name it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import report
from fixtures.checkpoints import write_checkpoint
from florence2.engine.precision import choose_packing, choose_precision
from florence2.model import Florence2
from florence2.model.cpu import kernels
from florence2.weights import load_model, read_checkpoint

PRECISIONS = ("bf16", "int8")
PROMPT, START = 10, 2


@torch.inference_mode()
def logits(model: Florence2, seed: int, given: Tensor | None, steps: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities of each step, ``[steps, vocabulary]``, and the tokens that were taken.

    Args:
        model: answers.
        seed: of the picture and the prompt.
        given: the tokens to take; None for the best ones.
        steps: how many.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(1, 3, 768, 768, generator=generator).to(model.tower_dtype)
    prompt = torch.randint(3, 50_000, (1, PROMPT), generator=generator)
    cache = model.new_cache(1)
    model.admit(cache, model.encode_prompt(model.encode_image(pixels), prompt, [PROMPT]), [1])
    token, found, taken = torch.tensor([START]), [], []
    for step in range(steps):
        found.append(model.decode_step(token, cache).float().log_softmax(-1)[0])
        token = found[-1].argmax().unsqueeze(0) if given is None else given[step : step + 1]
        taken.append(token)
    return torch.stack(found), torch.cat(taken)


def compared(exact: Tensor, other: Tensor) -> dict[str, float]:
    """How far log-probabilities are from the exact ones, and how often the best token is the same."""
    best = exact.argmax(-1)
    of_best = (exact - other).gather(1, best.unsqueeze(1)).abs()
    return {"same_best": (other.argmax(-1) == best).float().mean().item(), "of_best_nats": of_best.mean().item()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--size", default="base", choices=("base", "large"))
    arguments = parser.parse_args()
    kernels.prepare()
    cpu, figures = torch.device("cpu"), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = read_checkpoint(write_checkpoint(Path(folder), size=arguments.size))

        def loaded(precision: str) -> Florence2:
            return load_model(checkpoint, packing=choose_packing(choose_precision(precision, cpu), cpu))

        model = loaded("fp32")
        exact = [logits(model, seed, None, arguments.tokens) for seed in range(arguments.pictures)]
        for precision in PRECISIONS:
            model = loaded(precision)
            pairs = [(own, logits(model, seed, tokens, arguments.tokens)[0]) for seed, (own, tokens) in enumerate(exact)]
            whole = compared(*(torch.cat(part) for part in zip(*pairs, strict=True)))
            figures[precision] = {name: round(value, 4) for name, value in whole.items()}
            print(precision, figures[precision], flush=True)
    settings = {"size": arguments.size, "pictures": arguments.pictures, "tokens": arguments.tokens}
    print(report.write("precision_logits", settings, figures))


if __name__ == "__main__":
    main()
