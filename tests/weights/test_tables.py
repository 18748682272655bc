"""Adapters that change token tables: which uses of a table they reach, against real PEFT on the reference model."""

from __future__ import annotations

import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.checkpoints import edit_json, read_weights, reference_model, rewrite_weights, write_checkpoint
from florence2.errors import CheckpointError
from florence2.weights import load_model, read_checkpoint, save_native
from florence2.weights.names import to_original, to_ours
from tests.weights.test_lora import assert_same_logits, make_adapter

TABLES = ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head")
SETS = [list(names) for size in range(1, 5) for names in combinations(TABLES, size)]


@pytest.fixture(scope="module", params=["native", "original"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base"), layout=request.param, tokenizer=False)


@pytest.fixture(scope="module", params=["lm_head", "decoder.embed_tokens"])
def untied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base one of whose tables is not tied to the others."""
    folder = write_checkpoint(tmp_path_factory.mktemp("untied"), tokenizer=False)
    table = read_weights(folder)["model.language_model.shared.weight"]
    names = {name: key(name).removeprefix("base_model.model.") for name in TABLES}
    rewrite_weights(folder, **{full: table.roll(1, 0) if name == request.param else table for name, full in names.items()})
    edit_json(folder / "config.json", tie_word_embeddings=False, text_config__tie_word_embeddings=False)
    return folder


def num_rows(base: Path) -> int:
    return read_checkpoint(base).config.text.vocab_size


def key(table: str) -> str:
    return f"base_model.model.{'' if table == 'lm_head' else 'model.language_model.'}{table}.weight"


def spelled_in_the_original_layout(folder: Path) -> None:
    path, renamed = folder / "adapter_model.safetensors", {}
    for name, value in load_file(path).items():
        bare = name.removeprefix("base_model.model.")
        end = next((part for part in (".lora_", ".base_layer.", ".token_adapter.") if part in bare), None)
        module, part = bare.split(end, 1) if end else (bare.removesuffix(".weight"), "weight")
        renamed[f"base_model.model.{to_original(to_ours(f'{module}.weight')).removesuffix('.weight')}{end or '.'}{part}"] = value
    save_file(renamed, path)


@pytest.mark.slow
@pytest.mark.parametrize("names", [*SETS, ["embed_tokens"], ["embed_tokens", "lm_head"]], ids="+".join)
def test_whole_copies_reach_what_pefts_reach(base: Path, tmp_path: Path, names: list[str]):
    adapted = make_adapter(base, tmp_path, modules_to_save=names, target_modules=["q_proj"])
    assert_same_logits(base, adapted, tmp_path)
    spelled_in_the_original_layout(tmp_path)
    assert_same_logits(base, adapted, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["language_model", "decoder", "language_model.encoder", "model.language_model.decoder.embed_tokens"])
def test_copies_of_what_holds_tables(base: Path, tmp_path: Path, name: str):
    adapted = make_adapter(base, tmp_path, modules_to_save=[name], target_modules=["qkv"])
    assert_same_logits(base, adapted, tmp_path)
    path, named = tmp_path / "adapter_model.safetensors", f".{name.rpartition('.')[2]}."
    state = {key.replace(named, f"{named}modules_to_save.default.", 1): value for key, value in load_file(path).items()}
    save_file(state, path)
    edit_json(tmp_path / "adapter_config.json", modules_to_save=None)
    assert_same_logits(base, adapted, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_whole_copies_on_a_base_that_is_not_tied(untied: Path, tmp_path: Path, names: list[str]):
    assert_same_logits(untied, make_adapter(untied, tmp_path, modules_to_save=names, target_modules=["q_proj"]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("ensure", [False, True], ids=["free", "tied"])
@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_updates_reach_what_pefts_reach(base: Path, tmp_path: Path, names: list[str], ensure: bool):
    adapted = make_adapter(base, tmp_path, target_modules=["q_proj", *names], ensure_weight_tying=ensure)
    assert_same_logits(base, adapted, tmp_path)
    spelled_in_the_original_layout(tmp_path)
    assert_same_logits(base, adapted, tmp_path)


def test_magnitudes_of_a_table(base: Path, tmp_path: Path):
    adapted = make_adapter(base, tmp_path, target_modules=["q_proj", "decoder.embed_tokens"], use_dora=True)
    assert_same_logits(base, adapted, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("updated", "copied"), [("lm_head", "decoder.embed_tokens"), ("embed_tokens", "lm_head"), ("lm_head", "shared"), ("shared", "lm_head")]
)
def test_copies_and_updates_together(base: Path, tmp_path: Path, updated: str, copied: str):
    adapted = make_adapter(base, tmp_path, target_modules=["q_proj", updated], modules_to_save=[copied])
    assert_same_logits(base, adapted, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("names", [[table] for table in TABLES], ids="+".join)
def test_a_table_that_is_no_copy_replaces_all_that_are_tied(base: Path, tmp_path: Path, names: list[str]):
    """As ``save_embedding_layers`` writes them; PEFT loads such a table over the base's, which all uses share."""
    make_adapter(base, tmp_path, target_modules=["q_proj"])
    path = tmp_path / "adapter_model.safetensors"
    save_file({**load_file(path), **{key(name): torch.randn(num_rows(base), 32) for name in names}}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.PeftModel.from_pretrained(reference_model(base), str(tmp_path)).eval()
    assert_same_logits(base, adapted, tmp_path)
    assert type(load_model(read_checkpoint(base), adapters=[tmp_path]).language_model).__name__ == "Bart"


def test_tables_that_are_no_copies_and_differ_are_refused(base: Path, tmp_path: Path):
    make_adapter(base, tmp_path, target_modules=["q_proj"])
    path = tmp_path / "adapter_model.safetensors"
    rows = num_rows(base)
    save_file({**load_file(path), key("shared"): torch.zeros(rows, 32), key("lm_head"): torch.ones(rows, 32)}, path)
    with pytest.raises(CheckpointError, match="differ, and both replace the one table of its base"):
        load_model(read_checkpoint(base), adapters=[tmp_path])


ROWS: list[Any] = [[47, 99], *({table: [47, 99]} for table in TABLES), {"embed_tokens": [99, 47]}]
ROWS += [{"decoder.embed_tokens": [47], "lm_head": [47, 99]}, {"shared": [47], "lm_head": [47]}, {"encoder.embed_tokens": [5]}]


@pytest.mark.slow
@pytest.mark.parametrize("indices", ROWS, ids=str)
def test_trained_rows_reach_what_pefts_reach(base: Path, tmp_path: Path, indices: Any):
    adapted = make_adapter(base, tmp_path, target_modules=["q_proj"], trainable_token_indices=indices)
    assert_same_logits(base, adapted, tmp_path)
    spelled_in_the_original_layout(tmp_path)
    assert_same_logits(base, adapted, tmp_path)


@pytest.mark.parametrize("indices", ROWS[:3], ids=str)
def test_trained_rows_on_a_base_that_is_not_tied(untied: Path, tmp_path: Path, indices: Any):
    assert_same_logits(untied, make_adapter(untied, tmp_path, target_modules=["q_proj"], trainable_token_indices=indices), tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"trainable_token_indices": {"shared": [47], "lm_head": [47, 99]}},
        {"trainable_token_indices": [47], "modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [47], "target_modules": ["q_proj", "lm_head"]},
    ],
    ids=str,
)
def test_trained_rows_beside_other_changes_of_tables_are_refused(base: Path, tmp_path: Path, options: dict[str, Any]):
    make_adapter(base, tmp_path, **{"target_modules": ["q_proj"], **options})
    with pytest.raises(CheckpointError, match=r"trainable_token_indices together with other changes.*Merge the adapter"):
        load_model(read_checkpoint(base), adapters=[tmp_path])


def test_rows_without_their_ids_are_refused(base: Path, tmp_path: Path):
    make_adapter(base, tmp_path, target_modules=["q_proj"], trainable_token_indices=[47, 99])
    for indices in ([47], {"lm_head": [47, 99]}, None):
        edit_json(tmp_path / "adapter_config.json", trainable_token_indices=indices)
        with pytest.raises(CheckpointError, match="to hold one row for each of the trainable_token_indices"):
            load_model(read_checkpoint(base), adapters=[tmp_path])


@pytest.mark.parametrize("names", [["lm_head"], ["shared", "decoder.embed_tokens"]], ids="+".join)
def test_what_is_merged_can_be_saved(tmp_path: Path, names: list[str]):
    base = write_checkpoint(tmp_path / "base", tokenizer=False)
    adapted = make_adapter(base, tmp_path / "adapter", modules_to_save=names, target_modules=["q_proj"])
    checkpoint = read_checkpoint(base)
    save_native(load_model(checkpoint, adapters=[tmp_path / "adapter"]), tmp_path / "whole", dtype=torch.float32, image=checkpoint.image)
    assert_same_logits(tmp_path / "whole", adapted)


class TestAddedTokens:
    """PEFT's model has more rows than the published one."""

    @pytest.mark.parametrize("names", [["shared", "decoder.embed_tokens", "lm_head"], list(TABLES)], ids="+".join)
    def test_rows_that_an_adapter_brings(self, base: Path, tmp_path: Path, names: list[str]):
        assert_same_logits(
            base, make_adapter(base, tmp_path, rows=num_rows(base) + 3, modules_to_save=names, target_modules=["q_proj"]), tmp_path
        )

    @pytest.mark.parametrize("indices", [[1325, 1326, 1327], [47, 1327, 1326, 1325]], ids=str)
    def test_rows_that_alone_were_trained(self, tmp_path: Path, indices: list[int]):
        base = write_checkpoint(tmp_path / "base", tokenizer=False)
        adapted = make_adapter(base, tmp_path / "adapter", rows=1328, target_modules=["q_proj"], trainable_token_indices=indices)
        assert_same_logits(base, adapted, tmp_path / "adapter")

    @pytest.mark.parametrize(
        "options",
        [
            {"modules_to_save": ["embed_tokens", "lm_head"]},
            {"modules_to_save": ["lm_head"]},
            {"target_modules": ["q_proj", "lm_head"]},
            {"target_modules": ["q_proj", "shared"]},
            {"trainable_token_indices": [1326]},
        ],
        ids=str,
    )
    def test_rows_that_are_nowhere_are_named(self, tmp_path: Path, options: dict[str, Any]):
        base = write_checkpoint(tmp_path / "base", tokenizer=False)
        make_adapter(base, tmp_path / "adapter", **{"rows": 1328, "target_modules": ["q_proj"], **options})
        path = tmp_path / "adapter" / "adapter_model.safetensors"
        save_file({name: value for name, value in load_file(path).items() if "base_layer" not in name}, path)
        with pytest.raises(CheckpointError, match=r"trained after [23] token\(s\) were added.*merge the adapter with PEFT"):
            load_model(read_checkpoint(base), adapters=[tmp_path / "adapter"])

    def test_rows_of_a_base_saved_whole(self, tmp_path: Path):
        base = write_checkpoint(tmp_path / "base", tokenizer=False)
        enlarged = reference_model(base)
        enlarged.resize_token_embeddings(1328)
        enlarged.save_pretrained(tmp_path / "enlarged")
        (tmp_path / "enlarged" / "processor_config.json").write_text((base / "processor_config.json").read_text())
        adapted = make_adapter(tmp_path / "enlarged", tmp_path / "adapter", target_modules=["q_proj", "lm_head"])
        assert_same_logits(tmp_path / "enlarged", adapted, tmp_path / "adapter")

    def test_padding_that_was_cut_off(self, tmp_path: Path):
        base = write_checkpoint(tmp_path / "base", padded=True, tokenizer=False)
        adapted = make_adapter(base, tmp_path / "adapter", rows=1325, modules_to_save=["lm_head"], target_modules=["q_proj"])
        assert_same_logits(base, adapted, tmp_path / "adapter")

    def test_another_base(self, base: Path, tmp_path: Path):
        make_adapter(base, tmp_path, rows=900, modules_to_save=["lm_head"], target_modules=["q_proj"])
        with pytest.raises(CheckpointError, match="tables have 900 rows, those of its base 132"):
            load_model(read_checkpoint(base), adapters=[tmp_path])
