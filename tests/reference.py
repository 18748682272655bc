"""The reference implementation, tiny and random, and our model with the same weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from transformers import Florence2Config as ReferenceConfig
from transformers import Florence2ForConditionalGeneration as ReferenceModel

from florence2.model import Florence2, Florence2Config, TextConfig, VisionConfig

TINY_VISION = VisionConfig(
    embed_dim=(16, 32, 48, 64),
    depths=(1, 1, 2, 1),
    num_heads=(2, 2, 4, 4),
    num_groups=(2, 4, 4, 8),
    window_size=5,
    projection_dim=32,
    max_position_embeddings=20,
    max_temporal_embeddings=10,
)
TINY_TEXT = TextConfig(
    vocab_size=200,
    d_model=32,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=64,
    decoder_ffn_dim=64,
    max_position_embeddings=128,
)


def reference_model(vision: VisionConfig = TINY_VISION, text: TextConfig = TINY_TEXT, seed: int = 0, std: float = 0.2) -> Any:
    """The reference with random weights; ``std`` large enough that every part of it shows in the output."""
    torch.manual_seed(seed)
    vision_dict = {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(vision).items()}
    text_dict = {"model_type": "bart", **dataclasses.asdict(text)}
    text_dict |= {"bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_bos_token_id": 0, "forced_eos_token_id": 2}
    config = ReferenceConfig(vision_config=vision_dict, text_config=text_dict, image_token_id=text.vocab_size - 1)
    model: Any = ReferenceModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model


def own_model(reference: Any, vision: VisionConfig = TINY_VISION, text: TextConfig = TINY_TEXT) -> Florence2:
    """Our model with the reference's weights: native names without ``model.``, tied copies left out."""
    own = Florence2(Florence2Config(vision, text, text.vocab_size - 1)).eval()
    state = {name.removeprefix("model."): value for name, value in reference.state_dict().items() if name.startswith("model.")}
    own.load_state_dict({name: value for name, value in state.items() if "embed_tokens" not in name})
    return own


def reference_inputs(image_tokens: int, prompts: list[list[int]], image_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Input ids (image placeholders, then the prompt, padded on the right) and attention mask as the reference takes them."""
    longest = max(len(prompt) for prompt in prompts)
    ids = [[image_token_id] * image_tokens + prompt + [1] * (longest - len(prompt)) for prompt in prompts]
    mask = [[1] * (image_tokens + len(prompt)) + [0] * (longest - len(prompt)) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def padded(prompts: list[list[int]]) -> tuple[torch.Tensor, list[int]]:
    """Prompt ids padded on the right, and their lengths, as our model takes them."""
    longest = max(len(prompt) for prompt in prompts)
    return torch.tensor([prompt + [1] * (longest - len(prompt)) for prompt in prompts]), [len(prompt) for prompt in prompts]
