"""Loading: every layout, container and type; what is tied, padded or left out; what is refused, and with which names."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fixtures.checkpoints import TINY, edit_json, read_weights, reference_model, rewrite_weights, write_checkpoint
from florence2.errors import CheckpointError
from florence2.model import Florence2
from florence2.model.precision import Precision
from florence2.weights import load_model, read_checkpoint
from florence2.weights.names import TEMPORAL_TABLE
from tests.weights.test_names import WRAPPINGS, wrapped


@pytest.fixture(params=["native", "original"])
def layout(request: pytest.FixtureRequest) -> Any:
    return request.param


def load(folder: Path, **options: Any) -> Florence2:
    return load_model(read_checkpoint(folder), **options)


def assert_equal_to_reference(model: Florence2, folder: Path) -> None:
    reference = reference_model(folder).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, reference[f"model.{name}"]), name


@pytest.mark.parametrize("container", ["safetensors", "sharded", "bin", "sharded_bin"])
def test_every_layout_and_container_gives_the_references_weights(tmp_path: Path, layout: Any, container: Any):
    folder = write_checkpoint(tmp_path, layout=layout, container=container, tokenizer=False)
    model = load(folder)
    assert_equal_to_reference(model, folder)
    assert not model.training


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wanted", [None, torch.float32, torch.float16, torch.bfloat16])
def test_any_stored_type_becomes_the_wanted_one(tmp_path: Path, stored: torch.dtype, wanted: torch.dtype | None):
    folder = write_checkpoint(tmp_path, dtype=stored, tokenizer=False)
    model = load(folder, dtype=wanted)
    expected = wanted or torch.float32
    assert {value.dtype for value in model.state_dict().values()} == {expected}
    table = next(value for name, value in read_weights(folder).items() if name.endswith("shared.weight"))
    assert torch.equal(model.language_model.shared.weight, table.to(expected))


def test_logits_are_the_references(tmp_path: Path, layout: Any):
    folder = write_checkpoint(tmp_path, layout=layout, tokenizer=False)
    assert_same_logits(load(folder), reference_model(folder))


def assert_same_logits(model: Florence2, reference: Any) -> None:
    torch.manual_seed(0)
    pixels, prompt = torch.randn(1, 3, 64, 64), torch.tensor([[0, 47, 82, 2]])
    decoder_ids = torch.tensor([[2, 0, 99, 100]])
    image_ids = torch.full((1, 5), reference.config.image_token_id)
    with torch.no_grad():
        ours = model(model.encode_image(pixels), prompt, [4], decoder_ids)
        theirs = reference(input_ids=torch.cat([image_ids, prompt], 1), pixel_values=pixels, decoder_input_ids=decoder_ids).logits
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_names_that_training_has_wrapped(tmp_path: Path, layout: Any, wrapping: str):
    folder = write_checkpoint(tmp_path, layout=layout, tokenizer=False)
    expected = load(folder).state_dict()
    tensors = read_weights(folder)
    rewrite_weights(folder, **{**dict.fromkeys(tensors), **{wrapped(name, wrapping): value for name, value in tensors.items()}})
    for name, value in load(folder).state_dict().items():
        assert torch.equal(value, expected[name]), name
    rewrite_weights(folder, **{name: None for name in read_weights(folder) if "image_proj_norm" in name and name.endswith("weight")})
    prefix = "model.multi_modal_projector." if layout == "native" else ""
    with pytest.raises(CheckpointError, match=rf"1 missing \({prefix}image_proj_norm\.weight\)"):
        load(folder)


TABLES = {
    "native": [
        "lm_head.weight",
        "model.language_model.shared.weight",
        "model.language_model.encoder.embed_tokens.weight",
        "model.language_model.decoder.embed_tokens.weight",
    ],
    "original": [
        "language_model.lm_head.weight",
        "language_model.model.shared.weight",
        "language_model.model.encoder.embed_tokens.weight",
        "language_model.model.decoder.embed_tokens.weight",
    ],
}


class TestTied:
    @pytest.mark.parametrize("kept", range(4))
    def test_any_one_of_the_tables_suffices(self, tmp_path: Path, layout: Any, kept: int):
        folder = write_checkpoint(tmp_path, layout=layout, tokenizer=False)
        names = TABLES[layout]
        table = read_weights(folder)[names[1]]
        rewrite_weights(folder, **{**dict.fromkeys(names), names[kept]: table})
        assert torch.equal(load(folder).language_model.shared.weight, table)

    def test_none_of_them_is_missed_by_name(self, tmp_path: Path, layout: Any):
        folder = write_checkpoint(tmp_path, layout=layout, tokenizer=False)
        rewrite_weights(folder, **dict.fromkeys(TABLES[layout]))
        with pytest.raises(CheckpointError, match=rf"1 missing \({TABLES[layout][1]}\)"):
            load(folder)

    def test_a_head_that_differs_is_kept_apart(self, tmp_path: Path):
        folder = write_checkpoint(tmp_path, tokenizer=False)
        head, table, *_ = TABLES["native"]
        values = read_weights(folder)[table]
        rewrite_weights(folder, **{head: values.flip(0)})
        edit_json(folder / "config.json", tie_word_embeddings=False, text_config__tie_word_embeddings=False)
        model, reference = load(folder), reference_model(folder)
        hidden = torch.randn(2, TINY.text.d_model)
        assert torch.equal(model.language_model.head(hidden), hidden @ values.flip(0).T)
        assert torch.equal(model.language_model.head(hidden), reference.lm_head(hidden))
        assert torch.equal(model.language_model.embed_tokens(torch.tensor([5])), values[5:6])

    @pytest.mark.slow
    @pytest.mark.parametrize("own", [set(own) for size in range(1, 5) for own in combinations(range(4), size)], ids=str)
    @pytest.mark.parametrize("packing", [None, Precision(torch.float32, torch.float32)], ids=["plain", "packed"])
    def test_tables_that_differ_are_used_as_the_reference_does(self, tmp_path: Path, layout: Any, own: set[int], packing: Precision | None):
        """Head, shared, encoder's and decoder's: prompts and answers are embedded, and logits made, with the right one."""
        folder = write_checkpoint(tmp_path, layout=layout, tokenizer=False)
        names = TABLES[layout]
        table = read_weights(folder)[names[1]]
        rewrite_weights(folder, **{name: table.roll(index + 1, 0) if index in own else table for index, name in enumerate(names)})
        assert_same_logits(load(folder, packing=packing), reference_model(folder))

    def test_different_tables_of_encoder_and_decoder_do_not_stand_for_a_shared_one(self, tmp_path: Path, layout: Any):
        folder = write_checkpoint(tmp_path, layout=layout, tokenizer=False)
        _, table, encoder, decoder = TABLES[layout]
        values = read_weights(folder)[table]
        rewrite_weights(folder, **{table: None, encoder: values, decoder: values + 1})
        with pytest.raises(CheckpointError, match=rf"{encoder} and {decoder} differ"):
            load(folder)


class TestTolerance:
    def test_padded_native_tables(self, tmp_path: Path):
        folder = write_checkpoint(tmp_path, padded=True, tokenizer=False)
        assert load(folder).language_model.shared.weight.shape[0] == 1344
        edit_json(folder / "config.json", text_config__vocab_size=1325)
        model = load(folder)
        assert model.language_model.shared.weight.shape[0] == 1325
        edit_json(folder / "config.json", text_config__vocab_size=1270)
        with pytest.raises(CheckpointError, match=r"shared\.weight is \[1344, 32\] instead of \[1270, 32\]"):
            load(folder)

    def test_the_temporal_table_may_be_absent(self, tmp_path: Path, layout: Any):
        folder = write_checkpoint(tmp_path, layout=layout, tokenizer=False)
        expected = load(folder).state_dict()[TEMPORAL_TABLE]
        name = next(name for name in read_weights(folder) if name.endswith("pos_idx_to_embed"))
        rewrite_weights(folder, **{name: None})
        assert torch.equal(load(folder).state_dict()[TEMPORAL_TABLE], expected)

    def test_wrappers_of_training_frameworks(self, tmp_path: Path, layout: Any):
        folder = write_checkpoint(tmp_path, layout=layout, tokenizer=False)
        expected = load(folder).state_dict()
        tensors = rewrite_weights(folder)
        save_file({f"module._orig_mod.{name}": value for name, value in tensors.items()}, folder / "model.safetensors")
        model = load(folder)
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())

    def test_native_weights_saved_without_their_head(self, tmp_path: Path):
        folder = write_checkpoint(tmp_path, tokenizer=False)
        tensors = rewrite_weights(folder)
        save_file({name.removeprefix("model."): value for name, value in tensors.items()}, folder / "model.safetensors")
        assert torch.equal(load(folder).language_model.shared.weight, tensors["model.language_model.shared.weight"])


class TestRefusals:
    def test_missing_tensors_are_named_and_counted(self, tmp_path: Path, layout: Any):
        folder = write_checkpoint(tmp_path, layout=layout, tokenizer=False)
        norms = [name for name in read_weights(folder) if "channel_attn" in name]
        rewrite_weights(folder, **dict.fromkeys(norms))
        with pytest.raises(CheckpointError) as raised:
            load(folder)
        assert f"{len(norms)} missing ({sorted(norms)[0]}, {sorted(norms)[1]}" in raised.value.message
        assert f"and {len(norms) - 8} more)" in raised.value.message
        assert str(folder) in raised.value.message

    def test_foreign_tensors_are_named(self, tmp_path: Path):
        folder = write_checkpoint(tmp_path, tokenizer=False)
        rewrite_weights(folder, **{"bert.pooler.weight": torch.zeros(2)})
        with pytest.raises(CheckpointError, match=r"1 unexpected \(bert\.pooler\.weight\)"):
            load(folder)

    def test_other_shapes_are_named_with_both(self, tmp_path: Path, layout: Any):
        folder = write_checkpoint(tmp_path, layout=layout, tokenizer=False)
        name = next(name for name in read_weights(folder) if name.endswith("encoder.layers.0.fc1.weight"))
        rewrite_weights(folder, **{name: torch.zeros(7, 32)})
        with pytest.raises(CheckpointError, match=rf"{name} is \[7, 32\] instead of \[64, 32\]"):
            load(folder)

    def test_the_configuration_of_another_size_is_noticed(self, tmp_path: Path):
        folder = write_checkpoint(tmp_path, tokenizer=False)
        edit_json(folder / "config.json", text_config__encoder_layers=3, text_config__decoder_ffn_dim=64)
        with pytest.raises(CheckpointError, match=r"16 missing .*encoder\.layers\.2.*6 of another shape"):
            load(folder)

    def test_a_bias_of_the_logits_is_refused(self, tmp_path: Path):
        folder = write_checkpoint(tmp_path, layout="original", tokenizer=False)
        rewrite_weights(folder, **{"language_model.final_logits_bias": torch.full((1, 1324), 0.1)})
        with pytest.raises(CheckpointError, match=r"language_model\.final_logits_bias is not zero"):
            load(folder)

    def test_both_layouts_in_one_file_are_refused(self, tmp_path: Path):
        folder = write_checkpoint(tmp_path, layout="original", tokenizer=False)
        value = read_weights(folder)["image_proj_norm.weight"]
        rewrite_weights(folder, **{"model.multi_modal_projector.image_proj_norm.weight": value})
        with pytest.raises(CheckpointError, match="holds one tensor twice"):
            load(folder)


MEASURE = """
import sys, torch
from pathlib import Path
from florence2.weights import load_model, read_checkpoint

def peak_bytes():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

torch.set_num_threads(1)
folder, tiny = map(Path, sys.argv[1:])
load_model(read_checkpoint(tiny), dtype=torch.bfloat16)
start = peak_bytes()
mapped = load_model(read_checkpoint(folder))
after_mapping = peak_bytes()
converted = load_model(read_checkpoint(folder), dtype=torch.bfloat16)
print(after_mapping - start, peak_bytes() - after_mapping)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs this process's peak memory")
def test_loading_makes_no_second_copy(tmp_path: Path):
    """The peak is what the model needs: next to nothing while it is only mapped; its new size and one tensor where types change."""
    text = replace(TINY.text, d_model=256, encoder_ffn_dim=6000, decoder_ffn_dim=6000)
    size = replace(TINY, text=text, vision=replace(TINY.vision, projection_dim=256), base_vocabulary=2000)
    tiny = write_checkpoint(tmp_path / "tiny", tokenizer=False)
    folder = write_checkpoint(tmp_path / "medium", size=size, tokenizer=False)
    command = [sys.executable, "-c", MEASURE, str(folder), str(tiny)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    mapped_bytes, converted_bytes = map(int, done.stdout.split())
    stored_bytes = (folder / "model.safetensors").stat().st_size
    largest_bytes = 6000 * 256 * 4
    assert mapped_bytes < 0.1 * stored_bytes
    assert converted_bytes < 0.5 * stored_bytes + 1.5 * largest_bytes < 0.8 * stored_bytes
