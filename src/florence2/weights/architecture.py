"""From a checkpoint's ``config.json``, of either layout, to the dimensions of a model.

In: the parsed file. Out: a ``Florence2Config``. A known key with an unsupported value is an error that names it, unknown keys are
ignored, and a missing key has the default of the reference's configuration class for that layout. For the original layout, these
defaults are those of the large model.
"""

from __future__ import annotations

from florence2.errors import CheckpointError
from florence2.model.config import Florence2Config, TextConfig, VisionConfig
from florence2.weights.json_reader import JsonObject

_FEATURES = ["spatial_avg_pool", "temporal_avg_pool"]

# Key, accepted values, and what they stand for. A missing key and null are always accepted.
_VISION_RULES = (
    ("model_type", ("davit", "florence_vision", "florence2_vision", ""), "the DaViT backbone"),
    ("image_feature_source", (_FEATURES,), "the mean token in front of the grid"),
    ("activation_function", ("gelu",), "exact GELU"),
    ("conv_at_attn", (True,), "a depthwise convolution before each attention"),
    ("conv_at_ffn", (True,), "a depthwise convolution before each MLP"),
)
_TEXT_RULES = (
    ("model_type", ("bart", "florence2_language", ""), "the BART text model"),
    ("activation_function", ("gelu",), "exact GELU"),
    ("normalize_before", (False,), "norms after each residual"),
    ("normalize_embedding", (True,), "a norm after the embeddings"),
    ("add_final_layer_norm", (False,), "no norm after the last layer"),
    ("static_position_embeddings", (False,), "learned positions"),
    ("is_encoder_decoder", (True,), "encoder and decoder"),
)
_TOP_RULES = (
    ("model_type", ("florence2",), "Florence-2"),
    ("is_encoder_decoder", (True,), "encoder and decoder"),
)


def is_original(config: JsonObject) -> bool:
    """Whether a ``config.json`` has the original layout."""
    vision, text = config.object("vision_config"), config.object("text_config")
    return (
        "dim_embed" in vision
        or vision.get("model_type") in ("davit", "florence2_vision", "")
        or text.get("model_type") == "florence2_language"
    )


def read_architecture(config: JsonObject) -> Florence2Config:
    """The model's dimensions.

    Raises:
        CheckpointError: it is no Florence-2 configuration, or a value has the wrong type or is not supported.
    """
    if config.get("model_type") != "florence2" and not ("vision_config" in config and "text_config" in config):
        raise CheckpointError(f"{config.where}: expected a Florence-2 configuration, got model_type {config.get('model_type')!r}.")
    _check(config, _TOP_RULES)
    if "quantization_config" in config:
        raise CheckpointError(f"{config.where}: quantization_config: quantised weights can't be read; use the unquantised checkpoint.")
    original = is_original(config)
    try:
        vision = _vision(config.object("vision_config"), original)
        text = _text(config.object("text_config"), original)
    except ValueError as error:
        raise CheckpointError(f"{config.where}: {error}.") from error
    _check_fit(config, vision, text)
    image_token_id = None if original else config.integer("image_token_id", 51289)
    return Florence2Config(vision=vision, text=text, image_token_id=image_token_id)


def _check(values: JsonObject, rules: tuple[tuple[str, tuple, str], ...]) -> None:
    for key, accepted, meaning in rules:
        values.require(key, accepted, meaning)


def _vision(vision: JsonObject, original: bool) -> VisionConfig:
    _check(vision, _VISION_RULES)
    wide = (256, 512, 1024, 2048) if original else (128, 256, 512, 1024)
    heads = (8, 16, 32, 64) if original else (4, 8, 16, 32)
    if original:
        positions, frames = vision.object("image_pos_embed"), vision.object("visual_temporal_embedding")
        positions.require("type", ("learned_abs_2d",), "learned rows and columns")
        frames.require("type", ("COSINE",), "fixed cosines")
        max_positions = positions.integer("max_pos_embeddings", 50, minimum=1)
        max_frames = frames.integer("max_temporal_embeddings", 100, minimum=1)
    else:
        max_positions = vision.integer("max_position_embeddings", 50, minimum=1)
        max_frames = vision.integer("max_temporal_embeddings", 100, minimum=1)
    return VisionConfig(
        embed_dim=vision.integers("dim_embed" if original else "embed_dim", wide, minimum=1),
        depths=vision.integers("depths", (1, 1, 9, 1)),
        num_heads=vision.integers("num_heads", heads, minimum=1),
        num_groups=vision.integers("num_groups", heads, minimum=1),
        patch_size=vision.integers("patch_size", (7, 3, 3, 3), minimum=1),
        patch_stride=vision.integers("patch_stride", (4, 2, 2, 2), minimum=1),
        patch_padding=vision.integers("patch_padding", (3, 1, 1, 1)),
        patch_prenorm=vision.flags("patch_prenorm", (False, True, True, True)),
        window_size=vision.integer("window_size", 12, minimum=1),
        in_channels=vision.integer("in_chans" if original else "in_channels", 3, minimum=1),
        mlp_ratio=vision.number("mlp_ratio", 4.0),
        qkv_bias=vision.flag("qkv_bias", True),
        projection_dim=vision.integer("projection_dim", 1024, minimum=1),
        max_position_embeddings=max_positions,
        max_temporal_embeddings=max_frames,
    )


def _text(text: JsonObject, original: bool) -> TextConfig:
    _check(text, _TEXT_RULES)
    return TextConfig(
        vocab_size=text.integer("vocab_size", 51289 if original else 50265, minimum=1),
        d_model=text.integer("d_model", 1024, minimum=1),
        encoder_layers=text.integer("encoder_layers", 12),
        decoder_layers=text.integer("decoder_layers", 12),
        encoder_attention_heads=text.integer("encoder_attention_heads", 16, minimum=1),
        decoder_attention_heads=text.integer("decoder_attention_heads", 16, minimum=1),
        encoder_ffn_dim=text.integer("encoder_ffn_dim", 4096, minimum=1),
        decoder_ffn_dim=text.integer("decoder_ffn_dim", 4096, minimum=1),
        max_position_embeddings=text.integer("max_position_embeddings", 1024, minimum=1),
        scale_embedding=text.flag("scale_embedding", False),
        pad_token_id=text.integer("pad_token_id", 1),
    )


def _check_fit(config: JsonObject, vision: VisionConfig, text: TextConfig) -> None:
    """Check that the parts fit together; otherwise the model would only fail at the first image."""
    if vision.projection_dim != text.d_model:
        raise CheckpointError(
            f"{config.where}: expected vision_config.projection_dim to equal text_config.d_model, "
            f"got {vision.projection_dim} and {text.d_model}."
        )
    if vision.in_channels != 3:
        raise CheckpointError(f"{config.where}: vision_config: expected 3 input channels (RGB), got {vision.in_channels}.")
    for name, divisors in (("num_heads", vision.num_heads), ("num_groups", vision.num_groups)):
        for width, divisor in zip(vision.embed_dim, divisors, strict=True):
            if width % divisor:
                raise CheckpointError(f"{config.where}: vision_config: width {width} is not a multiple of its {name} {divisor}.")
