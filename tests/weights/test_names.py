"""Names against the reference's own, both ways and without gaps."""

from __future__ import annotations

import pytest
import torch

from fixtures.checkpoints import checkpoint_config
from florence2.model import Florence2
from florence2.weights.names import EMBEDDINGS, HEAD, LOGITS_BIAS, SHARED, is_original, to_native, to_original, to_ours, without_wrappers


@pytest.fixture(scope="module")
def ours() -> list[str]:
    with torch.device("meta"):
        return [*Florence2(checkpoint_config()).state_dict(), *EMBEDDINGS[1:], HEAD]


def test_native_names_are_the_references(ours: list[str]):
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    config = checkpoint_config()
    vision = {"embed_dim": config.vision.embed_dim, "depths": config.vision.depths, "projection_dim": config.text.d_model}
    vision |= {"num_heads": config.vision.num_heads, "num_groups": config.vision.num_groups}
    text = {"d_model": config.text.d_model, "encoder_layers": 2, "decoder_layers": 2, "vocab_size": 9, "model_type": "bart"}
    text |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    with torch.device("meta"):
        reference = Florence2ForConditionalGeneration(Florence2Config(vision_config=vision, text_config=text))
    assert {to_native(name) for name in ours} == set(reference.state_dict())


def test_every_name_comes_back_from_either_layout(ours: list[str]):
    for spelled in (to_native, to_original):
        assert [to_ours(spelled(name)) for name in ours] == ours
        assert len({spelled(name) for name in ours}) == len(ours)


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        ("vision_tower.convs.2.proj.weight", "vision_tower.convs.2.conv.weight"),
        ("vision_tower.convs.2.norm.bias", "vision_tower.convs.2.norm.bias"),
        ("vision_tower.blocks.2.8.spatial_block.conv1.fn.dw.weight", "vision_tower.blocks.2.8.spatial_block.conv1.weight"),
        ("vision_tower.blocks.0.0.spatial_block.window_attn.norm.bias", "vision_tower.blocks.0.0.spatial_block.norm1.bias"),
        ("vision_tower.blocks.0.0.spatial_block.window_attn.fn.qkv.bias", "vision_tower.blocks.0.0.spatial_block.window_attn.qkv.bias"),
        ("vision_tower.blocks.0.0.channel_block.channel_attn.fn.proj.bias", "vision_tower.blocks.0.0.channel_block.channel_attn.proj.bias"),
        ("vision_tower.blocks.0.0.channel_block.ffn.norm.weight", "vision_tower.blocks.0.0.channel_block.norm2.weight"),
        ("vision_tower.blocks.0.0.channel_block.ffn.fn.net.fc2.weight", "vision_tower.blocks.0.0.channel_block.ffn.fc2.weight"),
        ("image_projection", "multi_modal_projector.image_projection.weight"),
        ("image_proj_norm.weight", "multi_modal_projector.image_proj_norm.weight"),
        ("image_pos_embed.row_embeddings.weight", "multi_modal_projector.image_position_embed.row_embeddings.weight"),
        ("visual_temporal_embed.pos_idx_to_embed", "multi_modal_projector.visual_temporal_embed.pos_idx_to_embed"),
        ("language_model.model.shared.weight", SHARED),
        ("language_model.model.decoder.layers.5.encoder_attn.k_proj.bias", "language_model.decoder.layers.5.encoder_attn.k_proj.bias"),
        ("language_model.lm_head.weight", HEAD),
        ("language_model.final_logits_bias", LOGITS_BIAS),
    ],
)
def test_original_names_are_those_of_published_files(original: str, expected: str):
    assert to_ours(original) == expected
    assert to_original(expected) == original


def test_module_names_go_through_the_same_rules():
    assert to_ours("vision_tower.blocks.1.0.channel_block.ffn.fn.net.fc1") == "vision_tower.blocks.1.0.channel_block.ffn.fc1"
    assert to_ours("model.language_model.encoder.layers.0.fc1") == "language_model.encoder.layers.0.fc1"


# In front of a name, behind its first segment, before its last one: as compilers, distributed training and PEFT leave them.
WRAPPINGS = {
    "compiled": ("_orig_mod.", "", ""),
    "distributed": ("module.", "", ""),
    "compiled and distributed": ("module._orig_mod.", "", ""),
    "distributed and compiled": ("_orig_mod.module.", "", ""),
    "lightning": ("model.", "", ""),
    "lightning, compiled": ("model._orig_mod.", "", ""),
    "peft": ("base_model.model.", "", ""),
    "compiled over distributed over peft": ("_orig_mod.module.base_model.model.", "", ""),
    "parts compiled": ("", "_orig_mod.", ""),
    "parts sharded": ("_fsdp_wrapped_module.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."),
    "layers compiled": ("", "", "_orig_mod."),
    "everything twice": ("module.module.model.", "module._orig_mod.", "_orig_mod._orig_mod."),
}


def wrapped(name: str, wrapping: str) -> str:
    """A name as a framework spells it; PEFT's own parts and the tensor's stay at the end."""
    before, between, behind = WRAPPINGS[wrapping]
    front, *inner, last = name.split(".") if "." in name else ["", name]
    if not front:
        return f"{before}{name}"
    return ".".join([f"{before}{front}", *([f"{between}{inner[0]}", *inner[1:]] if inner else []), f"{behind}{last}"])


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapped_names_are_found_in_either_layout(ours: list[str], wrapping: str):
    for spelled in (to_native, to_original):
        assert [to_ours(wrapped(spelled(name), wrapping)) for name in ours] == ours


def test_wrapped_names_tell_their_layout(ours: list[str]):
    for wrapping in WRAPPINGS:
        assert any(is_original(wrapped(to_original(name), wrapping)) for name in ours)
        assert not any(is_original(wrapped(to_native(name), wrapping)) for name in ours)


def test_wrappers_are_taken_off():
    assert without_wrappers("module._orig_mod.model.lm_head") == "lm_head"
    assert to_ours("module.language_model.model.shared.weight") == SHARED


def test_unknown_names_stay():
    assert to_ours("bert.encoder.layer.0.weight") == "bert.encoder.layer.0.weight"
    assert to_ours("image_projection_of_another_model") == "image_projection_of_another_model"
