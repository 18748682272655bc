"""One decoder step at base size: ours and the reference's, same random weights, in turn, in one process.

A step is what one more token costs the model: embedding, six layers with their caches, the head over 51,290 tokens, and
the reordering of the cache after it. Three beams, float32, an image of 768 x 768 and a prompt of 11 tokens behind it.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from benchmarks import report
from florence2.model import Florence2, kernels
from florence2.model.packed import Numbers
from florence2.weights import load_model, read_checkpoint
from tests.checkpoints import reference_model, write_checkpoint

NUM_BEAMS = 3
NUM_STEPS = 48
WARM_UP = 8
SOURCE = 588
PARENTS = [0, 0, 1]  # what beam search does most: some rows go on, some are replaced


class Own:
    """Our steps."""

    def __init__(self, model: Florence2, hidden: torch.Tensor) -> None:
        from florence2.model import EncodedPrompts

        self.model, self.cache = model, model.new_cache(NUM_BEAMS)
        model.admit(self.cache, EncodedPrompts(hidden, (SOURCE,)), [NUM_BEAMS])

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.model.decode_step(tokens, self.cache)
        self.cache.reorder(PARENTS)
        return logits


class Reference:
    """The reference's steps, with its own cache."""

    def __init__(self, model: Any, hidden: torch.Tensor) -> None:
        self.model = model
        self.encoded = BaseModelOutput(last_hidden_state=hidden.expand(NUM_BEAMS, -1, -1).contiguous())  # type: ignore[arg-type]
        self.cache = EncoderDecoderCache(DynamicCache(config=model.config.text_config), DynamicCache(config=model.config.text_config))
        self.parents = torch.tensor(PARENTS)

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        output = self.model(decoder_input_ids=tokens.unsqueeze(1), encoder_outputs=self.encoded, past_key_values=self.cache, use_cache=True)
        self.cache.reorder_cache(self.parents)  # type: ignore[arg-type]
        return output.logits[:, -1]


@torch.inference_mode()
def main() -> None:
    """Measure, print and write."""
    torch.manual_seed(0)
    kernels.prepare()
    with tempfile.TemporaryDirectory() as folder:
        path = write_checkpoint(Path(folder), size="base")
        own, reference = load_model(read_checkpoint(path), packing=Numbers()), reference_model(path)
    hidden = torch.randn(1, SOURCE, own.config.text.d_model)
    runs = {"ours": Own(own, hidden), "reference": Reference(reference, hidden)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    largest = 0.0
    for number in range(WARM_UP + NUM_STEPS):
        tokens = torch.randint(3, 50_000, (NUM_BEAMS,))
        logits = {}
        for name in (list(runs), list(runs)[::-1])[number % 2]:
            started = time.perf_counter()
            logits[name] = runs[name].step(tokens)
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)
        largest = max(largest, float((logits["ours"] - logits["reference"]).abs().max()))
    figures = {
        "step_ms": {name: report.spread(values) for name, values in seconds.items()},
        "reference_over_ours": round(sorted(seconds["reference"])[NUM_STEPS // 2] / sorted(seconds["ours"])[NUM_STEPS // 2], 3),
        "largest_logit_difference": largest,
    }
    settings = {
        "size": "base",
        "precision": "fp32",
        "num_beams": NUM_BEAMS,
        "steps": NUM_STEPS,
        "warm_up": WARM_UP,
        "source_tokens": SOURCE,
    }
    print(figures)
    print(report.write("decoder_step", settings, figures))


if __name__ == "__main__":
    main()
