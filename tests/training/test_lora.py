"""Low-rank updates: they start as nothing, merge into what they are, and PEFT reads what is saved."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from fixtures.checkpoints import reference_model, write_checkpoint
from florence2.model.linear import Linear
from florence2.tasks.tokenizer import Tokenizer
from florence2.training.lora import TARGETS, LoraLinear, add_lora, merge_lora, save_adapter
from florence2.training.saving import save_checkpoint
from florence2.weights import load_model, read_checkpoint

NUM_IMAGE_TOKENS = 5  # of 64 x 64 pixels
PROMPT = torch.tensor([[0, 47, 82, 2]])
DECODER = torch.tensor([[2, 0, 99, 100, 101]])
PIXELS = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=["native", "original"])
def folder(request, tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp(request.param), layout=request.param)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(model.encode_image(PIXELS.clone()), PROMPT, [4], DECODER)


def updated(folder, targets=("language", "vision")):
    model = load_model(read_checkpoint(folder))
    add_lora(model, targets=targets, rank=4, alpha=6.0, seed=0)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            parameter.data.normal_(0, 0.1, generator=generator)
    return model


@torch.no_grad()
def reference_logits(model: Any) -> torch.Tensor:
    ids = torch.cat([torch.full((1, NUM_IMAGE_TOKENS), model.config.image_token_id), PROMPT], 1)
    return model(input_ids=ids, pixel_values=PIXELS, decoder_input_ids=DECODER).logits


def test_nothing_changes_at_first_and_only_the_updates_learn(folder):
    model = load_model(read_checkpoint(folder))
    before = logits(model)
    num_linear = sum(isinstance(module, Linear) for module in model.modules())
    add_lora(model, targets=tuple(TARGETS), rank=4, alpha=6.0, seed=0)
    assert torch.equal(logits(model), before)
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(learning) == 2 * num_linear
    assert all(name.endswith(("lora_A", "lora_B")) for name in learning)


def test_frozen_vision_has_no_updates(folder):
    model = updated(folder, targets=("language",))
    names = [name for name, module in model.named_modules() if isinstance(module, LoraLinear)]
    assert names
    assert all(name.startswith("language_model.") for name in names)


def test_merged_layers_answer_the_same(folder):
    model = updated(folder)
    before = logits(model)
    plain = logits(load_model(read_checkpoint(folder)))
    assert (before - plain).abs().max() > 0.1
    merge_lora(model)
    assert not any(isinstance(module, LoraLinear) for module in model.modules())
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("targets", [("language", "vision"), ("language",)])
def test_our_loader_reads_the_adapter(folder, tmp_path, targets):
    model = updated(folder, targets)
    save_adapter(model, tmp_path / "adapter", base=str(folder), targets=targets, rank=4, alpha=6.0)
    loaded = load_model(read_checkpoint(tmp_path / "adapter"))
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("targets", [("language", "vision"), ("language",)])
def test_peft_reads_the_adapter(tmp_path, targets):
    folder = write_checkpoint(tmp_path / "base")
    model = updated(folder, targets)
    save_adapter(model, tmp_path / "adapter", base=str(folder), targets=targets, rank=4, alpha=6.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's remarks on its own use of transformers
        theirs = peft.PeftModel.from_pretrained(reference_model(folder), str(tmp_path / "adapter")).eval()
    torch.testing.assert_close(reference_logits(theirs), logits(model), rtol=1e-3, atol=1e-3)


def test_the_reference_reads_a_merged_checkpoint(folder, tmp_path):
    model, checkpoint = updated(folder), read_checkpoint(folder)
    save_checkpoint(model, checkpoint, Tokenizer.load(folder), tmp_path / "merged")
    theirs = reference_logits(reference_model(tmp_path / "merged"))
    ours = logits(load_model(read_checkpoint(tmp_path / "merged")))
    vocabulary = checkpoint.config.text.vocab_size
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours[..., :vocabulary], logits(model), rtol=1e-4, atol=1e-4)
    saved = Tokenizer.load(tmp_path / "merged")
    assert saved.encode("a cat<loc_5>") == Tokenizer.load(folder).encode("a cat<loc_5>")
    assert saved.image_token_id == read_checkpoint(tmp_path / "merged").config.image_token_id is not None
    assert any(isinstance(module, LoraLinear) for module in model.modules())
