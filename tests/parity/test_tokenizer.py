"""Our ids and texts against ``transformers``, with a tiny vocabulary and, where it is at hand, the published one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from florence2.tasks import TASKS, Tokenizer
from florence2.tasks.vocabulary import ADDED_TOKENS
from tests.tasks.tiny_tokenizer import base_vocabulary, write_tokenizer_json

SHARED = Path(os.environ.get("FLORENCE2_SHARED", Path(__file__).parents[3] / "shared"))
PUBLISHED = SHARED / "data" / "florence-2-tokenizer"


class Pair:
    """Our tokenizer and the reference's, from one folder."""

    def __init__(self, folder: Path) -> None:
        self.ours = Tokenizer.load(folder)
        self.reference = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="</s>", extra_special_tokens=["<image>"]
        )


@pytest.fixture(scope="module", params=["tiny", "published"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    if request.param == "tiny":
        return Pair(write_tokenizer_json(tmp_path_factory.mktemp("tiny")))
    return Pair(_published())


def _published() -> Path:
    if not (PUBLISHED / "tokenizer.json").is_file():
        pytest.skip(f"the published tokenizer is not at hand: no {PUBLISHED}; set FLORENCE2_SHARED")
    return PUBLISHED


_pieces = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.sampled_from([*ADDED_TOKENS[:6], "<loc_999>", "<sep>", "<and>", "<mask>", "<unk>", "<loc_1000>", "<LOC_1>"]),
    st.sampled_from([" ", "  ", "\n", "\t", "\u3000", "'s", "the cat", " in", "é", "한국", "🙂", "👩\u200d🚀", "1234567"]),
)
# Prompts with these are refused before they are encoded (docs/decisions/0002-prompts.md).
_REFUSED = ("<s>", "</s>", "<pad>", "<image>")
_sentences = st.lists(_pieces, max_size=8).map("".join).filter(lambda text: not any(token in text for token in _REFUSED))


@settings(max_examples=250, deadline=None, derandomize=True)
@given(sentence=_sentences)
def test_ids_are_those_behind_the_references_image_tokens(pair: Pair, sentence: str) -> None:
    expected = pair.reference("<image><image><s>" + sentence + "</s>", add_special_tokens=False)["input_ids"]
    assert pair.ours.encode(sentence) == expected[2:]


@settings(max_examples=250, deadline=None, derandomize=True)
@given(sentence=_sentences, cut=st.integers(0, 30))
def test_texts_are_the_references(pair: Pair, sentence: str, cut: int) -> None:
    ids = pair.ours.encode(sentence)[cut:]
    expected = pair.reference.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert pair.ours.decode(ids) == expected


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_texts_of_arbitrary_ids_are_the_references(pair: Pair, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, pair.ours.vocab_size - 1), max_size=25))
    expected = pair.reference.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert pair.ours.decode(ids) == expected


def test_published_ids() -> None:
    tokenizer = Tokenizer.load(_published())
    assert tokenizer.encode(TASKS["<CAPTION>"].template) == [0, 2264, 473, 5, 2274, 6190, 116, 2]
    assert tokenizer.encode("".join(ADDED_TOKENS))[1:-1] == list(range(50265, 51289))
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.vocab_size) == (0, 1, 2, 51289)


def test_original_folders_give_the_published_ids(tmp_path: Path) -> None:
    table = json.loads((_published() / "tokenizer.json").read_text(encoding="utf-8"))
    plain, bart = tmp_path / "plain", tmp_path / "bart"
    bart.mkdir()
    (bart / "vocab.json").write_text(json.dumps(table["model"]["vocab"]), encoding="utf-8")
    (bart / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, table["model"]["merges"])), encoding="utf-8")
    table["added_tokens"] = [entry for entry in table["added_tokens"] if entry["content"] not in ADDED_TOKENS]
    write_tokenizer_json(plain, table)
    published = Tokenizer.load(PUBLISHED)
    sentences = [task.template for task in TASKS.values()] + ["".join(ADDED_TOKENS), "naïve 한국어 <mask> <loc_5>\n"]
    for folder in (plain, bart):
        tokenizer = Tokenizer.load(folder)
        assert [tokenizer.encode(sentence) for sentence in sentences] == [published.encode(sentence) for sentence in sentences]


def test_the_tiny_vocabulary_has_all_bytes() -> None:
    assert len(base_vocabulary()) == 4 + 256 + 10 + 1
