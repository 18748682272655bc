"""``config.json`` of either layout as dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import BartConfig
from transformers.models.florence2.configuration_florence2 import Florence2VisionConfig

from fixtures.checkpoints import BASE, LARGE, checkpoint_config, edit_json, write_settings
from florence2.errors import CheckpointError
from florence2.weights.architecture import is_original, read_architecture
from florence2.weights.json_reader import JsonObject, read_json


@pytest.fixture(params=["native", "original"])
def layout(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def config_path(tmp_path: Path, layout: Any) -> Path:
    write_settings(tmp_path, checkpoint_config("base", layout), BASE, layout, {})
    return tmp_path / "config.json"


@pytest.mark.parametrize(("name", "size"), [("base", BASE), ("large", LARGE)])
def test_published_dimensions_are_read(tmp_path: Path, layout: Any, name: str, size: Any):
    expected = checkpoint_config(name, layout)
    write_settings(tmp_path, expected, size, layout, {})
    config = read_json(tmp_path / "config.json")
    assert read_architecture(config) == expected
    assert is_original(config) == (layout == "original")


def test_absent_native_keys_mean_the_references_defaults():
    config = read_architecture(JsonObject({"model_type": "florence2"}, "config.json"))
    vision, text = Florence2VisionConfig(), BartConfig()
    for name in ("depths", "patch_size", "patch_stride", "patch_padding", "patch_prenorm", "embed_dim", "num_heads", "num_groups"):
        assert getattr(config.vision, name) == tuple(getattr(vision, name))
    for name in (
        "window_size",
        "mlp_ratio",
        "qkv_bias",
        "projection_dim",
        "max_temporal_embeddings",
        "max_position_embeddings",
        "in_channels",
    ):
        assert getattr(config.vision, name) == getattr(vision, name)
    for name in ("vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"):
        assert getattr(config.text, name) == getattr(text, name)
    for name in ("encoder_ffn_dim", "decoder_ffn_dim", "max_position_embeddings", "scale_embedding", "pad_token_id"):
        assert getattr(config.text, name) == getattr(text, name)
    assert config.image_token_id == 51289


def test_absent_original_keys_mean_the_large_model():
    values = {"model_type": "florence2", "vision_config": {"model_type": "davit"}, "text_config": {"model_type": "florence2_language"}}
    assert read_architecture(JsonObject(values, "config.json")) == checkpoint_config("large", "original")


def test_the_vision_model_type_of_an_original_may_be_empty(tmp_path: Path):
    write_settings(tmp_path, checkpoint_config("base", "original"), BASE, "original", {})
    edit_json(tmp_path / "config.json", vision_config__model_type="", text_config__model_type=None)
    assert read_architecture(read_json(tmp_path / "config.json")) == checkpoint_config("base", "original")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "llava"),
        ("vision_config__model_type", "clip_vision_model"),
        ("vision_config__image_feature_source", ["temporal_avg_pool"]),
        ("vision_config__image_feature_source", ["temporal_avg_pool", "spatial_avg_pool"]),
        ("vision_config__activation_function", "gelu_new"),
        ("vision_config__conv_at_attn", False),
        ("text_config__model_type", "t5"),
        ("text_config__normalize_before", True),
        ("text_config__add_final_layer_norm", True),
        ("text_config__activation_function", "relu"),
        ("quantization_config", {"load_in_4bit": True}),
        ("vision_config__projection_dim", 512),
        ("vision_config__num_heads", [3, 8, 16, 32]),
        ("vision_config__num_groups", [4, 8, 16]),
        ("vision_config__depths", "1 1 9 1"),
        ("vision_config__window_size", 0),
        ("vision_config__qkv_bias", "yes"),
        ("text_config__d_model", 768.5),
        ("text_config__vocab_size", True),
        ("text_config__encoder_attention_heads", 7),
        ("text_config", []),
    ],
)
def test_what_the_model_can_not_honour_is_refused_by_name(config_path: Path, key: str, value: Any):
    edit_json(config_path, **{key: value})
    with pytest.raises(CheckpointError) as raised:
        read_architecture(read_json(config_path))
    name = key.rsplit("__", 1)[-1]
    assert name in raised.value.message or name.split("_")[-1] in raised.value.message
    assert str(config_path) in raised.value.message


@pytest.mark.parametrize(
    ("key", "value"),
    [("vision_config__image_pos_embed__type", "sine"), ("vision_config__visual_temporal_embedding__type", "LEARNED")],
)
def test_other_position_embeddings_are_refused_by_name(tmp_path: Path, key: str, value: str):
    write_settings(tmp_path, checkpoint_config("base", "original"), BASE, "original", {})
    edit_json(tmp_path / "config.json", **{key: value})
    with pytest.raises(CheckpointError, match=f"type is .{value}"):
        read_architecture(read_json(tmp_path / "config.json"))


def test_unknown_keys_are_ignored(config_path: Path):
    expected = read_architecture(read_json(config_path))
    edit_json(config_path, surprise=1, vision_config__surprise=[2], text_config__surprise={"three": 3})
    assert read_architecture(read_json(config_path)) == expected


def test_another_models_configuration_is_refused():
    with pytest.raises(CheckpointError, match="expected a Florence-2 configuration, got model_type 'bert'"):
        read_architecture(JsonObject({"model_type": "bert", "hidden_size": 8}, "config.json"))
