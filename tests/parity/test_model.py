"""Our model against the reference, organ by organ: same weights in, same numbers out."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from florence2.model import VisionConfig
from tests.reference import TINY_TEXT, TINY_VISION, own_model, padded, reference_inputs, reference_model

TOLERANCE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}

VISIONS = {
    "tiny": (TINY_VISION, 72, 72),
    "windows do not divide": (dataclasses.replace(TINY_VISION, window_size=7), 88, 104),
    "one window": (dataclasses.replace(TINY_VISION, window_size=12), 64, 64),
    "three stages": (
        VisionConfig(
            embed_dim=(16, 24, 32),
            depths=(1, 2, 1),
            num_heads=(1, 3, 2),
            num_groups=(2, 2, 4),
            patch_size=(7, 3, 3),
            patch_stride=(4, 2, 1),
            patch_padding=(3, 1, 1),
            patch_prenorm=(False, True, False),
            window_size=4,
            mlp_ratio=2.0,
            qkv_bias=False,
            projection_dim=32,
        ),
        48,
        64,
    ),
}


@pytest.fixture(params=VISIONS, ids=lambda name: name.replace(" ", "-"))
def models(request):
    vision, height, width = VISIONS[request.param]
    reference = reference_model(vision)
    torch.manual_seed(1)
    return reference, own_model(reference, vision), torch.randn(2, 3, height, width)


@torch.no_grad()
def test_every_stage_of_the_tower_is_equal(models):
    reference, own, pixels = models
    ours = list(own.vision_tower.stages(pixels))
    theirs = pixels
    for stage, (conv, blocks) in enumerate(zip(reference.model.vision_tower.convs, reference.model.vision_tower.blocks, strict=True)):
        theirs = conv(theirs)
        for block in blocks:
            theirs = block(theirs)
        torch.testing.assert_close(ours[stage], theirs.permute(0, 2, 3, 1), **TOLERANCE)


@torch.no_grad()
def test_image_tokens_are_equal(models):
    reference, own, pixels = models
    theirs = reference.model.get_image_features(pixels).pooler_output
    ours = own.encode_image(pixels)
    assert ours.shape[1] == own.config.vision.num_image_tokens(*pixels.shape[2:])
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


@torch.no_grad()
def test_encoder_and_logits_of_a_ragged_batch_are_equal():
    reference = reference_model()
    own = own_model(reference)
    pixels = torch.randn(3, 3, 64, 64)
    prompts = [[0, 5, 6, 7, 8, 9, 2], [0, 11, 2], [0, 12, 13, 14, 2]]
    features = own.encode_image(pixels)
    ids, mask = reference_inputs(features.shape[1], prompts, TINY_TEXT.vocab_size - 1)
    decoder_ids = torch.randint(3, 190, (3, 9))
    theirs = reference(input_ids=ids, attention_mask=mask, pixel_values=pixels, decoder_input_ids=decoder_ids)

    prompt_ids, lengths = padded(prompts)
    encoded = own.encode_prompt(features, prompt_ids, lengths)
    for row, length in enumerate(encoded.lengths):
        torch.testing.assert_close(encoded.hidden[row, :length], theirs.encoder_last_hidden_state[row, :length], **TOLERANCE)
    torch.testing.assert_close(own(features, prompt_ids, lengths, decoder_ids), theirs.logits, **TOLERANCE)


@torch.no_grad()
def test_steps_with_a_cache_equal_the_reference_without_one():
    """Requests of different beams enter at different steps, beams swap histories, one leaves: logits stay the reference's."""
    reference = reference_model(seed=3)
    own = own_model(reference)
    pixels = torch.randn(2, 3, 64, 64)
    prompts = [[0, 5, 6, 7, 8, 2], [0, 11, 2]]
    features = own.encode_image(pixels)
    cache = own.new_cache(16)
    histories: list[list[int]] = []
    owner: list[int] = []

    def expected() -> torch.Tensor:
        rows = []
        for row, history in enumerate(histories):
            ids, mask = reference_inputs(features.shape[1], [prompts[owner[row]]], TINY_TEXT.vocab_size - 1)
            image = pixels[owner[row] : owner[row] + 1]
            rows.append(
                reference(input_ids=ids, attention_mask=mask, pixel_values=image, decoder_input_ids=torch.tensor([history])).logits[0, -1]
            )
        return torch.stack(rows)

    def step(tokens: list[int]) -> None:
        for history, token in zip(histories, tokens, strict=True):
            history.append(token)
        torch.testing.assert_close(own.decode_step(torch.tensor(tokens), cache), expected(), **TOLERANCE)

    def admit(request: int, num_beams: int) -> None:
        prompt_ids, lengths = padded([prompts[request]])
        own.admit(cache, own.encode_prompt(features[request : request + 1], prompt_ids, lengths), [num_beams])
        histories.extend([] for _ in range(num_beams))
        owner.extend([request] * num_beams)

    admit(0, 3)
    step([2, 2, 2])
    step([0, 0, 0])
    admit(1, 2)
    step([20, 21, 22, 2, 2])
    cache.reorder([2, 2, 0, 4, 3])
    histories[:] = [list(histories[parent]) for parent in (2, 2, 0, 4, 3)]
    step([30, 31, 32, 0, 0])
    cache.keep([1])
    del histories[:3], owner[:3]
    step([40, 41])
    admit(0, 1)
    step([50, 51, 2])


@torch.no_grad()
def test_a_long_answer_outgrows_the_first_room_of_the_cache():
    reference = reference_model(seed=4)
    own = own_model(reference)
    features = own.encode_image(torch.randn(1, 3, 64, 64))
    prompt_ids, lengths = padded([[0, 5, 2]])
    tokens = torch.randint(3, 190, (1, 100))
    all_at_once = own(features, prompt_ids, lengths, tokens)
    cache = own.new_cache(16)
    own.admit(cache, own.encode_prompt(features, prompt_ids, lengths), [1])
    for position in range(tokens.shape[1]):
        logits = own.decode_step(tokens[:, position], cache)
        torch.testing.assert_close(logits, all_at_once[:, position], **TOLERANCE)


def test_gradients_equal_the_reference():
    reference, text = reference_model(seed=5), TINY_TEXT
    own = own_model(reference)
    pixels = torch.randn(2, 3, 64, 64)
    prompts = [[0, 5, 6, 7, 2], [0, 11, 2]]
    num_tokens = own.config.vision.num_image_tokens(64, 64)
    ids, mask = reference_inputs(num_tokens, prompts, text.vocab_size - 1)
    decoder_ids = torch.randint(3, 190, (2, 6))
    labels = torch.randint(3, 190, (2, 6))
    theirs = reference(input_ids=ids, attention_mask=mask, pixel_values=pixels, decoder_input_ids=decoder_ids).logits
    torch.nn.functional.cross_entropy(theirs.flatten(0, 1), labels.flatten()).backward()
    prompt_ids, lengths = padded(prompts)
    ours = own(own.encode_image(pixels), prompt_ids, lengths, decoder_ids)
    torch.nn.functional.cross_entropy(ours.flatten(0, 1), labels.flatten()).backward()
    gradients = {name.removeprefix("model."): parameter.grad for name, parameter in reference.named_parameters()}
    for name, parameter in own.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")
