"""The shapes that annotations promise, checked while the model runs."""

from __future__ import annotations

import importlib
import sys

import torch
from jaxtyping import install_import_hook

import florence2

ROOMS = ("config", "attention", "kernels", "largest", "linear", "packed", "cache", "davit", "projector", "bart", "florence2")


def test_every_annotated_shape_holds():
    names = ["florence2.model", *(f"florence2.model.{room}" for room in ROOMS)]
    saved = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    try:
        with install_import_hook("florence2.model", "beartype.beartype"):
            model_room = importlib.import_module("florence2.model")
        vision = model_room.VisionConfig(
            embed_dim=(8, 16), depths=(1, 1), num_heads=(1, 2), num_groups=(1, 2), patch_size=(7, 3), patch_stride=(4, 2),
            patch_padding=(3, 1), patch_prenorm=(False, True), window_size=4, projection_dim=16,
        )  # fmt: skip
        text = model_room.TextConfig(
            vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
        )  # fmt: skip
        model = model_room.Florence2(model_room.Florence2Config(vision, text))
        with torch.no_grad():
            features = model.encode_image(torch.randn(2, 3, 40, 32))
            prompts = torch.tensor([[0, 5, 6, 2], [0, 5, 2, 1]])
            encoded = model.encode_prompt(features, prompts, [4, 3])
            cache = model.new_cache(4)
            model.admit(cache, encoded, [1, 3])
            assert model.decode_step(torch.tensor([2, 2, 2, 2]), cache).shape == (4, 50)
            assert model(features, prompts, [4, 3], prompts).shape == (2, 4, 50)
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(saved)
        florence2.model = saved.get("florence2.model") or importlib.import_module("florence2.model")  # type: ignore[attr-defined]
