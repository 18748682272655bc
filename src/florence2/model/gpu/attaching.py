"""Fused decoder steps put into a model, once they were held against PyTorch's. Knows nothing of requests or recordings."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from florence2.model.attention import KeyLengths
from florence2.model.cache import QueryPermutation, Step, StepSize
from florence2.model.cpu.kernels import is_wanted
from florence2.model.florence2 import Florence2
from florence2.model.gpu.decoder_step import KEYS, MOST_ROWS, PART, FusedStep

logger = logging.getLogger(__name__)

# Of the steps that are compared: positions of rows and of prompts, more than kernels take at a time, and how many tokens are ranked.
HELD, SOURCES, RANKED = KEYS + 3, (2 * PART + 5, PART - 1), 4
# By the type of the weights: PyTorch's steps round every intermediate value to it. Unrelated numbers would differ by 1.4.
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


def attach_fused_step(model: Florence2) -> None:
    """Have steps of few rows computed by kernels, if they can be compiled here and compute what PyTorch does.

    Compiling takes some seconds; what was compiled is kept on the disk (``TRITON_CACHE_DIR``).

    Args:
        model: on a GPU, its three projections of self attention fused; changed in place.
    """
    if not is_wanted():
        return
    try:
        step = FusedStep(model.language_model, model.config.text.decoder_attention_heads, model.routing)
        deviations = [deviation for rows in (1, MOST_ROWS) for deviation in _deviations(model, step, rows)]
    except Exception as error:  # no Triton, no compiler for what starts its kernels, a card that it does not know
        logger.warning("decoder steps are computed by PyTorch, which is slower: fused ones can't be used here: %s", error)
        return
    if not all(deviation <= TOLERANCES[model.dtype] for deviation in deviations):
        logger.warning("decoder steps are computed by PyTorch, which is slower: fused ones differ from its own by %s", deviations)
        return
    model.language_model.compiled_step = step


@torch.inference_mode()
def _deviations(model: Florence2, fused: FusedStep, rows: int) -> tuple[float, float]:
    """How far logits are from PyTorch's, and the best tokens' log-probabilities.

    Each is the root mean square of differences over the standard deviation of logits, and may be NaN.
    """
    generator = torch.Generator(model.device).manual_seed(rows)
    config, text = model.config.text, model.language_model

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=model.device).to(fused.key_dtype)

    # One request, or two whose prompts lie in the other order, the first of them with a single row.
    heads, requests, beams = config.decoder_attention_heads, min(rows, 2), max(rows - 1, 1)
    width = config.d_model // heads
    lengths = KeyLengths.of([HELD + 1] * rows, HELD + 2, model.device)
    sources = KeyLengths.of(SOURCES[:requests], SOURCES[0] + 2, model.device)
    queries = [beams, *range(beams)]
    rows_of_queries = [*range(1, rows), *[0] * beams]
    order = QueryPermutation(*(torch.tensor(index, device=model.device) for index in (queries, rows_of_queries))) if rows > 1 else None
    step = Step(
        StepSize(rows, requests, beams, HELD + 2, SOURCES[0] + 2),
        random(config.decoder_layers, 2, rows, HELD + 2, heads, width),
        random(config.decoder_layers, 2, requests, heads, SOURCES[0] + 2, width),
        torch.full((rows,), HELD, device=model.device),
        lengths,
        sources,
        order,
        torch.arange(rows, device=model.device),
    )
    tokens = torch.randint(config.vocab_size, (rows,), generator=generator, device=model.device)
    expected = text.head(text.decoder.step(text.embed_decoder_tokens(tokens), step)).float()
    logits = fused(tokens, step)
    ranked = fused.rank(logits, RANKED, (0,))
    numbers = ranked[:, RANKED:].contiguous().view(torch.float32)
    log_probs = torch.log_softmax(logits, dim=-1)
    best = torch.cat([log_probs.gather(1, ranked[:, :RANKED].long()), log_probs[:, :1]], dim=1)
    differences = (logits - expected, numbers - best, numbers[:, :RANKED] - log_probs.topk(RANKED).values)
    of_logits, *of_best = (float(difference.square().mean().sqrt() / expected.std()) for difference in differences)
    return of_logits, sum(of_best)
