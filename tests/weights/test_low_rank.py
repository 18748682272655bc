"""Which adapters can be computed beside the weights of their base; all others are refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.adapters import TEXT, write_adapter
from fixtures.checkpoints import checkpoint_config, edit_json, write_checkpoint
from florence2.errors import CheckpointError, NeedsMerging
from florence2.weights import read_checkpoint
from florence2.weights.low_rank import read_factors
from tests.weights.test_lora import CASES, make_adapter

REFUSED = {
    "dora": "DoRA",
    "vision linear and convolutions": "more than linear layers",
    "embeddings of positions": "more than linear layers",
    "whole modules": "trained as a whole",
    "biases of updates": "biases",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_what_has_to_be_merged_says_why(base: Path, tmp_path: Path, case: str) -> None:
    make_adapter(base, tmp_path, **CASES[case])
    with pytest.raises(NeedsMerging, match=REFUSED[case]):
        read_factors(read_checkpoint(base), tmp_path)


def test_trained_tables_have_to_be_merged_and_saved_ones_do_not(base: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", checkpoint_config(), targets=f"{TEXT}|lm_head")
    path = folder / "adapter_model.safetensors"
    table = load_file(base / "model.safetensors")["model.language_model.shared.weight"]
    for name in ("base_model.model.lm_head.base_layer.weight", "base_model.model.model.language_model.shared.weight"):
        save_file({**load_file(path), name: table}, path)
    assert "lm_head" in read_factors(read_checkpoint(base), folder)
    save_file({**load_file(path), "base_model.model.lm_head.base_layer.weight": table + 1, name: table + 1}, path)
    with pytest.raises(NeedsMerging, match="token tables"):
        read_factors(read_checkpoint(base), folder)


def test_added_tokens_have_to_be_merged(base: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", checkpoint_config())
    (folder / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    assert read_factors(read_checkpoint(base), folder)
    content = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    new = {**content["added_tokens"][-1], "id": content["added_tokens"][-1]["id"] + 1, "content": "<new>"}
    edit_json(folder / "tokenizer.json", added_tokens=[*content["added_tokens"], new])
    with pytest.raises(NeedsMerging, match="tokens of its own"):
        read_factors(read_checkpoint(base), folder)


def test_adapters_of_other_bases_are_refused(base: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(base)
    with pytest.raises(CheckpointError, match=r"trained on another base: .* does not fit its weight"):
        read_factors(checkpoint, write_adapter(tmp_path / "wide", checkpoint_config("wide")))
    deeper = write_adapter(tmp_path / "deeper", checkpoint_config("base"), targets=r"language_model\.encoder\.layers\.5\..*q_proj")
    with pytest.raises(CheckpointError, match="change what is not there"):
        read_factors(checkpoint, deeper)
    broken = write_adapter(tmp_path / "nan", checkpoint_config(), targets=r".*decoder.*fc1")
    tensors = load_file(broken / "adapter_model.safetensors")
    save_file({name: torch.full_like(value, torch.nan) for name, value in tensors.items()}, broken / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="no finite numbers"):
        read_factors(checkpoint, broken)
