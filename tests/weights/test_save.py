"""Saved folders, read back by us and by the reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from fixtures.checkpoints import checkpoint_config, random_state, rewrite_weights, write_checkpoint, write_tokenizer
from florence2.model import Florence2
from florence2.weights import GenerationDefaults, ImageSettings, load_model, read_checkpoint, save_native

IMAGE = ImageSettings(width=64, height=64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), resample=2)
GENERATION = GenerationDefaults(num_beams=2, max_new_tokens=12, no_repeat_ngram_size=0, early_stopping=False, length_penalty=0.5)


@pytest.fixture(scope="module")
def model() -> Florence2:
    model = Florence2(checkpoint_config())
    model.load_state_dict(random_state(model.config))
    return model.eval()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_everything_comes_back(model: Florence2, tmp_path: Path, dtype: torch.dtype):
    save_native(model, tmp_path, dtype=dtype, image=IMAGE, generation=GENERATION, banned_phrases={"it", "a"})
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.config == model.config
    assert checkpoint.image == IMAGE
    assert checkpoint.generation == GENERATION
    assert checkpoint.banned_phrases == {"it", "a"}
    state = model.state_dict()
    for name, value in load_model(checkpoint, dtype=dtype).state_dict().items():
        assert torch.equal(value, state[name].to(dtype)), name
    assert not list(tmp_path.glob("*.partial"))


def test_the_reference_loads_it_and_says_the_same(model: Florence2, tmp_path: Path):
    save_native(model, tmp_path, dtype=torch.float32, image=IMAGE, generation=GENERATION, banned_phrases={"it"})
    write_tokenizer(tmp_path)
    reference: Any = Florence2ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(reference.lm_head.weight, model.language_model.shared.weight)
    assert reference.generation_config.num_beams == 2
    assert reference.generation_config.length_penalty == 0.5
    processor = Florence2Processor.from_pretrained(tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 90, 3), dtype=np.uint8))
    inputs = processor(text="<OD>", images=picture, return_tensors="pt")  # type: ignore[call-arg]
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    prompt = inputs["input_ids"][:, 5:]
    decoder_ids = torch.tensor([[2, 0, 99]])
    with torch.no_grad():
        theirs = reference(**inputs, decoder_input_ids=decoder_ids).logits
        ours = model(model.encode_image(inputs["pixel_values"]), prompt, [prompt.shape[1]], decoder_ids)
        assert torch.allclose(ours, theirs, atol=1e-4)
        generated = reference.generate(**inputs)
    assert generated.shape[1] <= 13
    parsed = processor.post_process_generation("it<loc_1><loc_2><loc_3><loc_4>", task="<CAPTION_TO_PHRASE_GROUNDING>", image_size=(9, 9))
    assert parsed == {"<CAPTION_TO_PHRASE_GROUNDING>": {"bboxes": [], "labels": []}}


def test_published_settings_are_the_default(tmp_path: Path):
    config = checkpoint_config()
    model = Florence2(replace(config, vision=replace(config.vision, max_position_embeddings=24)))
    save_native(model, tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.image == ImageSettings()
    assert checkpoint.generation == GenerationDefaults()
    assert (tmp_path / "model.safetensors").stat().st_size < 2.2 * sum(value.numel() for value in model.state_dict().values())


@pytest.mark.slow
def test_a_model_may_be_saved_over_the_folder_it_is_mapped_from(tmp_path: Path):
    folder = write_checkpoint(tmp_path)
    model = load_model(read_checkpoint(folder))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_native(model, folder, dtype=torch.float32, image=ImageSettings(width=64, height=64))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in load_model(read_checkpoint(folder)).state_dict().items())
    assert (folder / "tokenizer.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "own", ["lm_head.weight", "model.language_model.decoder.embed_tokens.weight", "model.language_model.shared.weight"]
)
def test_the_reference_says_the_same_with_tables_that_differ(tmp_path: Path, own: str):
    folder = write_checkpoint(tmp_path / "base", tokenizer=False)
    table = load_model(read_checkpoint(folder)).language_model.shared.weight.detach()
    tables = [
        "lm_head.weight",
        *(f"model.language_model.{name}.weight" for name in ("shared", "encoder.embed_tokens", "decoder.embed_tokens")),
    ]
    rewrite_weights(folder, **{name: table.roll(1, 0) if name == own else table for name in tables})
    model = load_model(read_checkpoint(folder))
    save_native(model, tmp_path / "saved", dtype=torch.float32, image=ImageSettings(width=64, height=64))
    reference = Florence2ForConditionalGeneration.from_pretrained(tmp_path / "saved").eval()
    pixels, prompt, decoder_ids = torch.randn(1, 3, 64, 64), torch.tensor([[0, 47, 82, 2]]), torch.tensor([[2, 0, 99]])
    image_ids = torch.full((1, 5), reference.config.image_token_id)
    with torch.no_grad():
        ours = model(model.encode_image(pixels), prompt, [4], decoder_ids)
        theirs = reference(input_ids=torch.cat([image_ids, prompt], 1), pixel_values=pixels, decoder_input_ids=decoder_ids).logits
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_head_of_its_own_is_written_and_declared(tmp_path: Path):
    folder = write_checkpoint(tmp_path / "base", tokenizer=False)
    table = load_model(read_checkpoint(folder)).language_model.shared.weight
    rewrite_weights(folder, **{"lm_head.weight": table.detach() * 2})
    save_native(load_model(read_checkpoint(folder)), tmp_path / "saved", dtype=torch.float32, image=ImageSettings(width=64, height=64))
    reference = Florence2ForConditionalGeneration.from_pretrained(tmp_path / "saved")
    assert torch.equal(reference.lm_head.weight, table * 2)
    assert torch.equal(reference.model.language_model.shared.weight, table)
    hidden = torch.randn(1, 32)
    assert torch.equal(load_model(read_checkpoint(tmp_path / "saved")).language_model.head(hidden), reference.lm_head(hidden))
