"""The estimate is put together from what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from florence2.doctor import estimate as module
from florence2.doctor.report import Estimate
from florence2.model.config import TextConfig, VisionConfig
from florence2.model.precision import Precision
from florence2.weights import resolve
from florence2.weights.checkpoint import read_checkpoint


def test_the_parts_add_up() -> None:
    assert Estimate("m", "fp32", 20, 3, 2.0, 0.5, 0.01).image_s == pytest.approx(2.7)


def test_a_file_of_zeros_is_a_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    module.write_zeros(path, {"a": (2, 3), "b": (5,)})
    with safe_open(path, "pt") as file:
        shapes = {name: tuple(file.get_tensor(name).shape) for name in file.keys()}  # noqa: SIM118 - no mapping
        assert not file.get_tensor("a").any()
    assert shapes == {"a": (2, 3), "b": (5,)}


@pytest.mark.slow
@pytest.mark.parametrize("is_quantized", [False, True])
def test_a_small_model_is_measured(monkeypatch: pytest.MonkeyPatch, is_quantized: bool) -> None:
    """Of small dimensions; a stage of nine blocks takes longer than one block of the same stage."""
    small = VisionConfig(embed_dim=(32,) * 4, num_heads=(1,) * 4, num_groups=(1,) * 4, depths=(1, 1, 9, 1), projection_dim=64)
    text = TextConfig(d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
    monkeypatch.setattr(module, "VisionConfig", lambda depths=small.depths: small if depths == small.depths else replace(small, depths))
    monkeypatch.setattr(module, "TextConfig", lambda: text)
    found = module.estimate(Precision(torch.float32, torch.float32, is_quantized), read_checkpoint(resolve("florence-2-demo")))
    assert found.precision == ("int8" if is_quantized else "fp32")
    assert min(found.tower_s, found.encoder_s, found.step_s) > 0
    assert found.image_s > found.tower_s


def replace(config: VisionConfig, depths: tuple[int, ...]) -> VisionConfig:
    import dataclasses

    return dataclasses.replace(config, depths=depths)
