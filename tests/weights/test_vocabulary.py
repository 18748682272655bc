"""Adapters trained after tokens were added: which tokenizer the model gets, and what is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

import florence2
from fixtures.checkpoints import edit_json, write_checkpoint
from florence2.errors import CheckpointError
from florence2.weights import read_checkpoint
from florence2.weights.vocabulary import read_tokenizer
from tests.weights.test_lora import make_adapter

NEW = ["<arrow>", "</arrow>"]
ROWS = 1325 + len(NEW)
BROUGHT = ["shared", "decoder.embed_tokens", "lm_head"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base"))


def add_tokens(base: Path, folder: Path, tokens: list[str] = NEW) -> None:
    backend = Backend.from_file(str(base / "tokenizer.json"))
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in tokens])
    backend.save(str(folder / "tokenizer.json"))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"modules_to_save": BROUGHT}, {"trainable_token_indices": [1325, 1326]}], ids=str)
def test_added_tokens_are_read_and_written(base: Path, tmp_path: Path, options: dict):
    make_adapter(base, tmp_path, rows=ROWS, target_modules=["q_proj"], **options)
    edit_json(tmp_path / "adapter_config.json", base_model_name_or_path=str(base))
    add_tokens(base, tmp_path)
    for engine in (florence2.load(base, adapters=[tmp_path]), florence2.load(tmp_path)):
        with engine:
            assert engine.tokenizer.encode("<arrow>a") == [0, 1325, engine.tokenizer.encode("a")[1], 2]
            assert engine.tokenizer.decode([1325, 1326]) == "<arrow></arrow>"
            assert engine.run(Image.new("RGB", (64, 64)), "what is <arrow>", max_new_tokens=3, num_beams=1).token_ids


def test_rows_without_a_tokenizer_are_told(base: Path, tmp_path: Path):
    make_adapter(base, tmp_path, rows=ROWS, target_modules=["q_proj"], modules_to_save=BROUGHT)
    with pytest.raises(CheckpointError, match=r"2 row\(s\) of added tokens and no tokenizer.*Put the tokenizer\.json"):
        florence2.load(base, adapters=[tmp_path])


def test_tokens_without_rows_are_told(base: Path, tmp_path: Path):
    make_adapter(base, tmp_path, target_modules=["q_proj"])
    add_tokens(base, tmp_path)
    with pytest.raises(CheckpointError, match=r"trained after 2 token\(s\) were added.*no rows for <arrow>, </arrow>.*1325 rows"):
        florence2.load(base, adapters=[tmp_path])


def test_tokens_within_the_padding_have_rows(tmp_path: Path):
    base = write_checkpoint(tmp_path / "base", padded=True)
    make_adapter(base, tmp_path / "adapter", target_modules=["q_proj"])
    add_tokens(base, tmp_path / "adapter")
    with florence2.load(base, adapters=[tmp_path / "adapter"]) as engine:
        assert engine.tokenizer.encode("<arrow>")[1] == 1325


def test_another_base_s_tokenizer_is_told(base: Path, tmp_path: Path):
    other = write_checkpoint(tmp_path / "other", size="tiny", layout="native")
    content = (other / "tokenizer.json").read_text().replace("filler0", "<moved>", 1)
    (tmp_path / "tokenizer.json").write_text(content.replace('"filler1"', '"filler0"'))
    shutil.rmtree(other)
    make_adapter(base, tmp_path, target_modules=["q_proj"])
    with pytest.raises(CheckpointError, match=r"other ids than its base's for \d+ token"):
        florence2.load(base, adapters=[tmp_path])


@pytest.mark.parametrize("layout", ["native", "original"])
def test_a_copy_of_the_base_s_tokenizer_changes_nothing(tmp_path: Path, layout):
    base = write_checkpoint(tmp_path / "base", layout=layout)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, adapter / name)
    checkpoint = read_checkpoint(base)
    assert read_tokenizer(checkpoint, [adapter], checkpoint.config.text.vocab_size).folder == base
    # The native tokenizer has <image> besides, which no prompt or answer holds.
    write_checkpoint(tmp_path / "native")
    shutil.copy(tmp_path / "native" / "tokenizer.json", adapter)
    assert read_tokenizer(checkpoint, [adapter], checkpoint.config.text.vocab_size).folder == base


@pytest.fixture(autouse=True)
def _few_threads():
    torch.set_num_threads(1)
