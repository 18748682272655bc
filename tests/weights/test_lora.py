"""Adapters merged at load, against real PEFT on the reference model."""

from __future__ import annotations

import json
import shutil
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.checkpoints import edit_json, reference_model, write_checkpoint
from florence2.errors import CheckpointError, DownloadError, ModelNotFound
from florence2.weights import load_model, read_checkpoint
from florence2.weights.names import to_original, to_ours
from tests.weights.test_names import WRAPPINGS, wrapped

TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
# "fc1" and "fc2" reach into the vision tower as well; "conv" are the convolutions between its stages.
VISION = ["qkv", "proj", "conv", "image_projection"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base"), tokenizer=False)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("original"), layout="original", tokenizer=False)


def make_adapter(base: Path, folder: Path, *, rows: int | None = None, **options: Any) -> Any:
    """Write an adapter with random factors (PEFT starts with zeros) and return PEFT's own model, its token tables resized if asked."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        # PEFT's remarks on its own use of transformers, on tied heads and on depthwise ranks are no faults of ours.
        warnings.simplefilter("ignore")
        reference = reference_model(base)
        if rows is not None:
            reference.resize_token_embeddings(rows)
        model = peft.get_peft_model(reference, peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": TEXT, **options}))
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("lora_", "modules_to_save", "trainable_tokens")):
                parameter.data.normal_(0, 0.1).add_(1.0 if "magnitude" in name else 0.0)
        model.save_pretrained(str(folder))
    return model.eval()


def inputs(model: Any) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    image_ids = torch.full((1, 5), model.config.image_token_id)
    return {
        "pixel_values": torch.randn(1, 3, 64, 64, generator=generator),
        "input_ids": torch.cat([image_ids, torch.tensor([[0, 47, 82, 2]])], 1),
        "decoder_input_ids": torch.tensor([[2, 0, 99, 100, 101]]),
    }


@cache
def plain_logits(base: Path) -> torch.Tensor:
    """What the reference says without an adapter."""
    model = reference_model(base)
    with torch.no_grad():
        return model(**inputs(model)).logits


def assert_same_logits(base: Path, adapted: Any, *adapters: Path) -> None:
    """Ours, merged, against PEFT's unmerged model; the adapter must matter for that to say anything."""
    ours = load_model(read_checkpoint(base), adapters=adapters)
    given = inputs(adapted)
    with torch.no_grad():
        theirs = adapted(**given).logits
        logits = ours(ours.encode_image(given["pixel_values"]), given["input_ids"][:, 5:], [4], given["decoder_input_ids"])
    plain = plain_logits(base)
    assert (theirs[..., : plain.shape[-1]] - plain[..., : theirs.shape[-1]]).abs().max() > (0.1 if adapters else -1)
    assert torch.allclose(logits, theirs, atol=1e-4), (logits - theirs).abs().max()


CASES: dict[str, dict[str, Any]] = {
    "text": {},
    "vision linear and convolutions": {"target_modules": [*TEXT, *VISION]},
    "rslora": {"use_rslora": True, "target_modules": [*TEXT, *VISION]},
    "dora": {"use_dora": True, "target_modules": [*TEXT, "qkv", "proj", "image_projection", "conv"]},
    "patterns": {"rank_pattern": {"fc1": 2, "decoder.*q_proj": 6}, "alpha_pattern": {r"layers\.0\.fc1": 32, "k_proj": 1}},
    "embeddings of positions": {"target_modules": ["row_embeddings", "column_embeddings", "q_proj"]},
    "dora on embeddings": {"target_modules": ["row_embeddings", "q_proj"], "use_dora": True},
    "the head alone": {"target_modules": ["lm_head", "q_proj"]},
    "the common recipe": {
        "target_modules": ["q_proj", "k_proj", "v_proj", "lm_head", "fc2"],
        "use_rslora": True,
        "init_lora_weights": "gaussian",
    },
    "whole modules": {"modules_to_save": ["image_projection", "image_proj_norm"]},
    "trained biases": {"bias": "all"},
    "biases of updates": {"lora_bias": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_merged_logits_are_pefts(base: Path, tmp_path: Path, case: str):
    adapted = make_adapter(base, tmp_path, **CASES[case])
    if "bias" in CASES[case]:
        tensors = load_file(tmp_path / "adapter_model.safetensors")
        biases = {name for name in tensors if name.endswith("bias")}
        assert biases
        for name, parameter in adapted.named_parameters():
            saved = name.replace(".base_layer.", ".") if name.replace(".base_layer.", ".") in biases else name
            if saved in biases:
                parameter.data.add_(0.1)
                tensors[saved] = parameter.data.clone()
        save_file(tensors, tmp_path / "adapter_model.safetensors")
    assert_same_logits(base, adapted, tmp_path)


def test_merged_weights_are_pefts(base: Path, tmp_path: Path):
    adapted = make_adapter(base, tmp_path, target_modules=[*TEXT, *VISION], use_dora=False)
    merged = adapted.merge_and_unload().state_dict()
    ours = load_model(read_checkpoint(base), adapters=[tmp_path]).state_dict()
    for name, value in ours.items():
        assert torch.allclose(value, merged[f"model.{name}"], atol=1e-5), name


def test_adapters_of_originals_name_the_originals_modules(original: Path, tmp_path: Path):
    """An adapter whose keys are spelled in the original layout, merged into an original base."""
    adapted = make_adapter(original, tmp_path / "native", target_modules=[*TEXT, "qkv", "proj", "conv", "lm_head"], use_rslora=True)
    renamed = {}
    for key, value in load_file(tmp_path / "native" / "adapter_model.safetensors").items():
        module, part = key.removeprefix("base_model.model.").rsplit(".lora_" if ".lora_" in key else ".base_layer.", 1)
        suffix = f".lora_{part}" if ".lora_" in key else f".base_layer.{part}"
        module = to_original(to_ours(f"{module}.weight")).removesuffix(".weight")
        renamed[f"base_model.model.{module}{suffix}"] = value
    assert any("window_attn.fn.qkv" in key for key in renamed)
    assert any("convs.0.proj" in key for key in renamed)
    folder = tmp_path / "spelled"
    folder.mkdir()
    save_file(renamed, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text((tmp_path / "native" / "adapter_config.json").read_text())
    assert_same_logits(original, adapted, folder)


@pytest.mark.slow
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_adapters_whose_names_are_wrapped(base: Path, tmp_path: Path, wrapping: str):
    options = {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["image_proj_norm"], "alpha_pattern": {"encoder.*q_proj": 32}}
    adapted = make_adapter(base, tmp_path, **options)
    path = tmp_path / "adapter_model.safetensors"
    save_file({wrapped(name, wrapping): value for name, value in load_file(path).items()}, path)
    assert_same_logits(base, adapted, tmp_path)


def test_a_tensor_that_is_there_twice(base: Path, tmp_path: Path):
    make_adapter(base, tmp_path, target_modules=["q_proj"], modules_to_save=["image_proj_norm"])
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    for part in ("lora_A", "image_proj_norm.weight"):
        name = next(name for name in tensors if part in name)
        save_file({**tensors, f"_orig_mod.{name}": tensors[name] + 1}, path)
        with pytest.raises(CheckpointError, match=r"holds one tensor twice, as .* and as "):
            load_model(read_checkpoint(base), adapters=[tmp_path])


def test_several_adapters_are_merged_in_turn(base: Path, tmp_path: Path):
    make_adapter(base, tmp_path / "first")
    make_adapter(base, tmp_path / "second", target_modules=["qkv"])
    model = load_model(read_checkpoint(base), adapters=[tmp_path / "first", tmp_path / "second"]).state_dict()
    first = load_model(read_checkpoint(base), adapters=[tmp_path / "first"]).state_dict()
    second = load_model(read_checkpoint(base), adapters=[tmp_path / "second"]).state_dict()
    for name, value in model.items():
        assert torch.equal(value, second[name] if ".qkv." in name else first[name])


def test_merging_is_done_in_float32_before_the_type_changes(base: Path, tmp_path: Path):
    make_adapter(base, tmp_path)
    exact = load_model(read_checkpoint(base), adapters=[tmp_path]).state_dict()
    half = load_model(read_checkpoint(base), adapters=[tmp_path], dtype=torch.bfloat16).state_dict()
    assert all(torch.equal(value, exact[name].to(torch.bfloat16)) for name, value in half.items())


def test_pickled_adapters_are_read(base: Path, tmp_path: Path):
    adapted = make_adapter(base, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    torch.save(load_file(file), tmp_path / "adapter_model.bin")
    file.unlink()
    assert_same_logits(base, adapted, tmp_path)


class TestAsModel:
    """An adapter's folder given as the model."""

    def test_its_base_lies_in_a_folder_inside(self, tmp_path: Path):
        folder = tmp_path / "package"
        base = write_checkpoint(folder / "base", tokenizer=False)
        adapted = make_adapter(base, folder)
        edit_json(folder / "adapter_config.json", base_model_name_or_path="/nowhere/to/be/found")
        checkpoint = read_checkpoint(folder)
        assert checkpoint.folder == base
        assert checkpoint.adapters == (folder,)
        given = inputs(adapted)
        model = load_model(checkpoint)
        with torch.no_grad():
            ours = model(model.encode_image(given["pixel_values"]), given["input_ids"][:, 5:], [4], given["decoder_input_ids"])
            assert torch.allclose(ours, adapted(**given).logits, atol=1e-4)

    def test_its_base_is_what_it_names(self, base: Path, tmp_path: Path):
        make_adapter(base, tmp_path)
        assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
        assert read_checkpoint(tmp_path).folder == base

    def test_a_base_on_the_hub_is_fetched(self, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        make_adapter(base, tmp_path)
        edit_json(tmp_path / "adapter_config.json", base_model_name_or_path="microsoft/Florence-2-base-ft", revision="v1")
        asked = []
        monkeypatch.setattr("florence2.weights.hub.fetch", lambda *what: asked.append(what) or base)
        assert read_checkpoint(tmp_path).folder == base
        assert asked == [("microsoft/Florence-2-base-ft", "v1")]

    def test_without_a_base_it_says_what_to_do(self, base: Path, tmp_path: Path):
        make_adapter(base, tmp_path)
        edit_json(tmp_path / "adapter_config.json", base_model_name_or_path=None)
        with pytest.raises(CheckpointError, match=rf"adapter_config\.json names no base.*--model BASE --adapter {tmp_path}"):
            read_checkpoint(tmp_path)

    @pytest.mark.parametrize("name", ["/home/somebody/runs/base", "./checkpoint", "base", "C:\\runs\\base", "owner/base", "x" * 2000])
    def test_a_base_that_is_gone_is_told_with_adapter_file_and_remedy(
        self, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        make_adapter(base, tmp_path)
        edit_json(tmp_path / "adapter_config.json", base_model_name_or_path=name)
        with pytest.raises((ModelNotFound, DownloadError)) as told:
            read_checkpoint(tmp_path)
        said = told.value.message
        assert f"{tmp_path / 'adapter_config.json'}: its base_model_name_or_path {name[:80]}" in said
        assert f"--model BASE --adapter {tmp_path}," in said
        assert len(said) < 500

    def test_a_base_that_is_no_checkpoint_any_more(self, base: Path, tmp_path: Path):
        make_adapter(base, tmp_path / "adapter")
        (tmp_path / "emptied").mkdir()
        edit_json(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=str(tmp_path / "emptied"))
        with pytest.raises(CheckpointError, match=rf"expected config\.json, found nothing.*--adapter {tmp_path / 'adapter'}"):
            read_checkpoint(tmp_path / "adapter")


@pytest.fixture(scope="module")
def intact(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("intact")
    make_adapter(base, folder, target_modules=["q_proj"])
    return folder


class TestRefusals:
    @pytest.fixture
    def adapter(self, intact: Path, tmp_path: Path) -> Path:
        return shutil.copytree(intact, tmp_path / "adapter")

    def change(self, adapter: Path, **changes: Any) -> None:
        path = adapter / "adapter_model.safetensors"
        tensors = {**load_file(path), **changes}
        save_file({name: value for name, value in tensors.items() if value is not None}, path)

    def refused(self, base: Path, adapter: Path, match: str) -> None:
        with pytest.raises(CheckpointError, match=match):
            load_model(read_checkpoint(base), adapters=[adapter])

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("peft_type", "IA3"),
            ("init_lora_weights", "pissa"),
            ("use_qalora", True),
            ("layer_replication", [[0, 1]]),
            ("alora_invocation_tokens", [1]),
        ],
    )
    def test_variants_that_can_not_be_merged(self, base: Path, adapter: Path, key: str, value: Any):
        edit_json(adapter / "adapter_config.json", **{key: value})
        self.refused(base, adapter, rf"adapter_config\.json: {key} is")

    def test_a_missing_factor(self, base: Path, adapter: Path):
        key = next(key for key in load_file(adapter / "adapter_model.safetensors") if key.endswith("lora_B.weight"))
        self.change(adapter, **{key: None})
        self.refused(base, adapter, r"q_proj is incomplete: expected a lora_A and a lora_B, got lora_A")

    def test_modules_that_are_not_there(self, base: Path, adapter: Path):
        name = "base_model.model.model.language_model.encoder.layers.9.self_attn.q_proj"
        self.change(adapter, **{f"{name}.lora_A.weight": torch.zeros(4, 32), f"{name}.lora_B.weight": torch.zeros(32, 4)})
        self.refused(
            base, adapter, r"1 of its tensors change what is not there: language_model\.encoder\.layers\.9\.self_attn\.q_proj\.weight"
        )

    def test_factors_of_another_size(self, base: Path, adapter: Path):
        key = next(key for key in load_file(adapter / "adapter_model.safetensors") if key.endswith("lora_B.weight"))
        self.change(adapter, **{key: torch.zeros(48, 4)})
        self.refused(base, adapter, r"q_proj \(A \[4, 32\] and B \[48, 4\]\) does not fit its weight \[32, 32\]")

    def test_depthwise_convolutions(self, base: Path, adapter: Path):
        """PEFT's update of one mixes all channels, which no depthwise weight can."""
        make_adapter(base, adapter, target_modules=["vision_tower.blocks.0.0.spatial_block.conv1"], r=8)
        self.refused(base, adapter, r"conv1 .*an update of a depthwise convolution mixes channels")

    def test_a_replacement_of_another_shape(self, base: Path, adapter: Path):
        self.change(adapter, **{"base_model.model.model.multi_modal_projector.image_proj_norm.weight": torch.zeros(5)})
        self.refused(base, adapter, r"image_proj_norm\.weight to have the shape \[32\], got \[5\]")

    def test_no_adapter_at_all(self, base: Path, adapter: Path):
        self.refused(base, base, r"is no adapter: expected adapter_config\.json")
        (adapter / "adapter_model.safetensors").unlink()
        self.refused(base, adapter, r"incomplete: expected one of adapter_model\.safetensors")
