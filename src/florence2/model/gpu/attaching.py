"""Fused decoder steps put into a model, once they were held against PyTorch's. Knows nothing of requests or recordings."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from florence2.model.attention import KeyLengths
from florence2.model.cache import Step, StepSize
from florence2.model.cpu.kernels import is_wanted
from florence2.model.florence2 import Florence2
from florence2.model.gpu.decoder_step import MOST_ROWS, FusedStep

logger = logging.getLogger(__name__)

# Of the steps that are compared: positions of rows and of the prompt, how many are filled, how many tokens are ranked.
POSITIONS, SOURCE, HELD, RANKED = 5, 37, 3, 4
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
        logger.warning("decoder steps are computed by PyTorch, which is slower: fused ones can't be compiled here: %s", error)
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

    heads = config.decoder_attention_heads
    width = config.d_model // heads
    lengths = KeyLengths(torch.full((rows,), HELD + 1, device=model.device), POSITIONS, is_full=False)
    sources = KeyLengths(torch.full((1,), SOURCE - 2, device=model.device), SOURCE, is_full=False)
    step = Step(
        StepSize(rows, 1, rows, POSITIONS, SOURCE),
        random(config.decoder_layers, 2, rows, POSITIONS, heads, width),
        random(config.decoder_layers, 2, 1, heads, SOURCE, width),
        torch.full((rows,), HELD, device=model.device),
        lengths,
        sources,
        None,
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
