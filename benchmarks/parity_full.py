"""Ours against the reference at full size: random base and large checkpoints, both layouts, one image, three prompts.

Checkpoints are made here, nothing is downloaded. For every size and layout both implementations load the same folder; the
largest difference of image tokens, encoder states and logits is printed, and whether greedy and beam search give the same
ids; where they do not, how far apart the reference finds the two answers. ``--sizes base`` leaves large out.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import florence2
from benchmarks import report
from fixtures.checkpoints import reference_model, write_checkpoint
from florence2.engine.preprocess import preprocess
from florence2.images import read_image
from florence2.weights import read_checkpoint

PROMPTS = ("<CAPTION>", "<OPEN_VOCABULARY_DETECTION>a red circle", "<REGION_TO_CATEGORY><loc_10><loc_20><loc_500><loc_600>")
NUM_NEW_TOKENS = 16
SEARCHES = {"greedy": 1, "three beams": 3}


@torch.inference_mode()
def compare(folder: Path, image: np.ndarray) -> dict[str, Any]:
    """Load ``folder`` into both implementations and hold their numbers against each other."""
    started = time.perf_counter()
    figures: dict[str, Any] = {}
    with florence2.load(folder, device="cpu", precision="fp32") as engine:
        figures["load_s"] = round(time.perf_counter() - started, 2)
        answers = {
            (search, prompt): engine.run(image, prompt, num_beams=num_beams, max_new_tokens=NUM_NEW_TOKENS).token_ids
            for search, num_beams in SEARCHES.items()
            for prompt in PROMPTS
        }
        checkpoint, tokenizer = engine.checkpoint, engine.tokenizer
    own = florence2.weights.load_model(checkpoint, dtype=torch.float32)
    pixels = preprocess(read_image(image), checkpoint.image).unsqueeze(0)
    ids = tokenizer.encode(florence2.tasks.expand_prompt(PROMPTS[1]))
    decoder_ids = torch.tensor([[2, 0, 11, 12, 13, 14, 15, 16]])
    features = own.encode_image(pixels)
    encoded = own.encode_prompt(features, torch.tensor([ids]), [len(ids)])
    logits = own(features, torch.tensor([ids]), [len(ids)], decoder_ids)
    del own
    gc.collect()

    reference = reference_model(folder)
    placeholder = reference.config.image_token_id
    inputs = torch.tensor([[placeholder] * features.shape[1] + ids])
    theirs = reference(input_ids=inputs, pixel_values=pixels, decoder_input_ids=decoder_ids)
    their_features = reference.get_image_features(pixels).pooler_output
    figures["largest_difference"] = {
        "image_tokens": float((features - their_features).abs().max()),
        "encoder": float((encoded.hidden - theirs.encoder_last_hidden_state).abs().max()),
        "logits": float((logits - theirs.logits).abs().max()),
        "logits_scale": float(theirs.logits.abs().max()),
    }
    defaults = checkpoint.generation
    for (search, prompt), ours in answers.items():
        ids = tokenizer.encode(florence2.tasks.expand_prompt(prompt))
        inputs = torch.tensor([[placeholder] * features.shape[1] + ids])
        generated = reference.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            pixel_values=pixels,
            num_beams=SEARCHES[search],
            max_new_tokens=NUM_NEW_TOKENS,
            do_sample=False,
            early_stopping=defaults.early_stopping if SEARCHES[search] > 1 else None,
            no_repeat_ngram_size=defaults.no_repeat_ngram_size,
            forced_bos_token_id=defaults.forced_bos_token_id,
            forced_eos_token_id=defaults.forced_eos_token_id,
            decoder_start_token_id=defaults.decoder_start_token_id,
        )[0].tolist()[1:]
        figures.setdefault("ids_equal", {})[f"{search}: {prompt}"] = ours == generated
        if ours != generated:
            scores = [reference_score(reference, inputs, pixels, token_ids) for token_ids in (generated, ours)]
            figures.setdefault("score_gaps", {})[f"{search}: {prompt}"] = scores[0] - scores[1]
    return figures


def reference_score(reference: Any, inputs: torch.Tensor, pixels: torch.Tensor, token_ids: list[int]) -> float:
    """Mean log-probability that the reference gives an answer, without its first and last token, which are forced.

    Random weights make answers whose scores differ in the seventh digit; where implementations choose differently, the gap
    tells a tie from a fault.
    """
    decoder_ids = torch.tensor([[2, *token_ids[:-1]]])
    logits = reference(input_ids=inputs, pixel_values=pixels, decoder_input_ids=decoder_ids).logits[0]
    chosen = logits.log_softmax(-1).gather(-1, torch.tensor(token_ids).unsqueeze(-1)).squeeze(-1)
    return float(chosen[1:-1].mean())


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=("base", "large"), default=("base", "large"))
    arguments = parser.parse_args()
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    figures = {}
    for size in arguments.sizes:
        for layout in ("native", "original"):
            with tempfile.TemporaryDirectory() as folder:
                path = write_checkpoint(Path(folder), layout=layout, size=size)
                assert read_checkpoint(path).image.width == 768
                figures[f"{size}, {layout}"] = compare(path, image)
            print(f"{size}, {layout}: {figures[f'{size}, {layout}']}", flush=True)
    print(report.write("parity_full", {"precision": "fp32", "prompts": PROMPTS, "new_tokens": NUM_NEW_TOKENS}, figures))


if __name__ == "__main__":
    main()
