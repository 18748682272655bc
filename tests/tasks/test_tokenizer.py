"""Loading, encoding and decoding with small vocabularies; equality with the reference's is in tests/parity."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florence2.errors import CheckpointError, InvalidPrompt, MissingExtra
from florence2.tasks import Tokenizer
from florence2.tasks.vocabulary import ADDED_TOKENS
from tests.tasks.tiny_tokenizer import base_vocabulary, tokenizer_json, write_bart_files, write_tokenizer_json

BASE_SIZE = len(base_vocabulary())
SENTENCES = ("the cat in the  hat", "", " cat", "café 한국어 🙂", "<loc_5><loc_999>a<sep>b <and> c", "x\n\ny ", "a <mask> b", "<loc_1000>")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(write_tokenizer_json(tmp_path_factory.mktemp("native")))


def test_all_layouts_give_the_same_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    plain = Tokenizer.load(write_tokenizer_json(tmp_path / "plain", tokenizer_json(added=())))
    bart = Tokenizer.load(write_bart_files(tmp_path / "bart"))
    for sentence in SENTENCES:
        assert tokenizer.encode(sentence) == plain.encode(sentence) == bart.encode(sentence)
    assert tokenizer.vocab_size == plain.vocab_size == bart.vocab_size == BASE_SIZE + 1024


def test_the_added_tokens_follow_the_base_vocabulary_in_order(tmp_path: Path) -> None:
    bart = Tokenizer.load(write_bart_files(tmp_path))
    for index, token in enumerate(ADDED_TOKENS):
        assert bart.encode(token) == [0, BASE_SIZE + index, 2]


def test_listed_tokens_come_first(tmp_path: Path) -> None:
    write_bart_files(tmp_path)
    listed = {token: BASE_SIZE + index for index, token in enumerate((*ADDED_TOKENS, "<image>"))}
    (tmp_path / "added_tokens.json").write_text(json.dumps(listed), encoding="utf-8")
    assert Tokenizer.load(tmp_path).image_token_id == BASE_SIZE + 1024
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<new>": BASE_SIZE + 7}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"added_tokens\.json.*<new>"):
        Tokenizer.load(tmp_path)


def test_ids_of_the_frame(tokenizer: Tokenizer) -> None:
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.image_token_id) == (0, 1, 2, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"post_processor": None},
        {"truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}},
        {
            "padding": {
                "strategy": {"Fixed": 64},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 1,
                "pad_type_id": 0,
                "pad_token": "<pad>",
            }
        },
    ],
)
def test_what_the_file_says_of_frames_and_lengths_is_no_matter(tokenizer: Tokenizer, tmp_path: Path, changes: dict) -> None:
    other = Tokenizer.load(write_tokenizer_json(tmp_path, tokenizer_json(**changes)))
    assert other.encode("the cat in the hat") == tokenizer.encode("the cat in the hat")


def test_encoding_half_a_character_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidPrompt, match="surrogate"):
        tokenizer.encode("\ud83d")


@pytest.mark.parametrize("sentence", SENTENCES)
def test_decoding_gives_the_sentence_back(tokenizer: Tokenizer, sentence: str) -> None:
    expected = sentence.replace(" <mask>", "<mask>")  # this token takes the space before it along
    assert tokenizer.decode(tokenizer.encode(sentence)) == f"<s>{expected}</s>"


_ids = st.lists(st.integers(0, BASE_SIZE + 1100), max_size=30)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(ids=_ids)
def test_offsets_cover_the_text_of_any_ids(tokenizer: Tokenizer, ids: list[int]) -> None:
    text, offsets = tokenizer.decode_with_offsets(ids)
    assert text == tokenizer.decode(ids) == tokenizer._backend.decode(ids, skip_special_tokens=False)
    assert len(offsets) == len(ids)
    assert offsets == sorted(offsets)
    assert {place for start, end in offsets for place in range(start, end)} == set(range(len(text)))
    for index, (start, end) in zip(ids, offsets, strict=True):
        if BASE_SIZE <= index < BASE_SIZE + 1024:
            assert text[start:end] == ADDED_TOKENS[index - BASE_SIZE]


def test_tokens_of_one_character_share_it(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a🙂b")
    text, offsets = tokenizer.decode_with_offsets(ids)
    assert text == "<s>a🙂b</s>"
    assert offsets == [(0, 3), (3, 4), *[(4, 5)] * 4, (5, 6), (6, 10)]
    text, offsets = tokenizer.decode_with_offsets([*ids[:4], ids[-2]])
    assert text == "<s>a\ufffdb"
    assert offsets == [(0, 3), (3, 4), (4, 5), (4, 5), (5, 6)]
    nothing = BASE_SIZE + 1100  # no token of the vocabulary
    assert tokenizer.decode_with_offsets([ids[2], nothing, *ids[3:6], nothing])[1] == [*[(0, 1)] * 5, (1, 1)]


def _broken_json(folder: Path) -> None:
    write_tokenizer_json(folder)
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:5000])


def _no_text(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b"\xff\xfe\x00")


def _lost_locations(folder: Path) -> None:
    write_tokenizer_json(folder, tokenizer_json(added=ADDED_TOKENS[:500]))


def _another_family(folder: Path) -> None:
    write_tokenizer_json(folder, tokenizer_json(decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}))


def _no_frame(folder: Path) -> None:
    table = tokenizer_json()
    table["added_tokens"] = [entry for entry in table["added_tokens"] if entry["content"] != "</s>"]
    del table["model"]["vocab"]["</s>"]
    table["post_processor"] = None
    write_tokenizer_json(folder, table)


def _gap_in_ids(folder: Path) -> None:
    table = tokenizer_json(added=())
    table["model"]["vocab"]["far"] = 9999
    write_tokenizer_json(folder, table)


def _broken_vocabulary(folder: Path) -> None:
    write_bart_files(folder)
    (folder / "vocab.json").write_text('{"a": 1,', encoding="utf-8")


def _vocabulary_of_lists(folder: Path) -> None:
    write_bart_files(folder)
    (folder / "vocab.json").write_text('["a"]', encoding="utf-8")


def _foreign_merges(folder: Path) -> None:
    write_bart_files(folder)
    (folder / "merges.txt").write_text("#version: 0.2\nzz qq\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (_broken_json, "tokenizer.json"),
        (_no_text, "tokenizer.json"),
        (_lost_locations, "tokenizer.json.*<loc_496>"),
        (_another_family, "tokenizer.json.*byte-level"),
        (_no_frame, "tokenizer.json.*</s>"),
        (_gap_in_ids, "tokenizer.json.*gaps"),
        (_broken_vocabulary, "vocab.json"),
        (_vocabulary_of_lists, "vocab.json"),
        (_foreign_merges, "merges.txt"),
        (lambda folder: None, "expected tokenizer.json"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage, file: str) -> None:
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=file):
        Tokenizer.load(tmp_path)


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tokenizer_json(tmp_path)
    real_import = builtins.__import__

    def without_tokenizers(name: str, *args, **kwargs):
        if name.startswith("tokenizers"):
            raise ModuleNotFoundError(name, name=name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_tokenizers)
    with pytest.raises(MissingExtra, match=r"florence2-engine\[engine\]"):
        Tokenizer.load(tmp_path)
