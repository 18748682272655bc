"""Self attention with one layer for queries, keys and values, as models on a GPU have it, computes what three layers compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fixtures.checkpoints import write_checkpoint
from florence2.model.attention import KeyLengths
from florence2.weights import load_model, read_checkpoint


@torch.inference_mode()
def test_a_step_and_a_prompt_are_the_same(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_checkpoint(tmp_path))
    plain, fused = load_model(checkpoint), load_model(checkpoint)
    fused.language_model.fuse_projections()
    features = torch.randn(2, 5, checkpoint.config.text.d_model, generator=torch.Generator().manual_seed(0))
    logits = []
    for model in (plain, fused):
        cache = model.new_cache(3)
        encoded = model.encode_prompt(features, torch.tensor([[0, 5, 2], [0, 2, 1]]), [3, 2])
        model.admit(cache, encoded, [2, 1])
        logits.append([encoded.hidden, *(model.decode_step(torch.tensor(tokens), cache) for tokens in ([2, 2, 2], [7, 8, 9]))])
    for one, other in zip(*logits, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keys_that_are_not_valid_count_nothing(dtype: torch.dtype) -> None:
    key_lengths = KeyLengths.of([1, 3], 3, torch.device("cpu"))
    bias = key_lengths.bias(dtype)
    assert bias is not None
    assert bias.dtype == dtype
    assert bias[:, 0, 0].tolist() == [[0, -torch.inf, -torch.inf], [0, 0, 0]]
    assert key_lengths.bias(dtype) is bias  # the layers of a step share it
    assert KeyLengths.of([3, 3], 3, torch.device("cpu")).bias(dtype) is None
