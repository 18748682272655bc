"""Tokens are reported when nothing can take them back, and their text in whole characters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.checkpoints import write_checkpoint
from florence2.engine.decided import DecidedText, DecidedTokens
from florence2.engine.options import GenerationOptions
from florence2.engine.request import start_search
from florence2.engine.search import SpecialTokens, best_tokens
from florence2.tasks import Tokenizer

VOCABULARY = 12


def run_search(options: GenerationOptions, special: SpecialTokens, seed: int, steps_apart: int = 1) -> tuple[list[list[int]], list[int]]:
    """What random logits decide, one list for each time it is asked for, and the whole answer."""
    generator = torch.Generator().manual_seed(seed)
    search = start_search(options, special)
    decided = DecidedTokens(search)
    told: list[list[int]] = []
    steps = 0
    while search.answer is None:
        logits = torch.randn(search.num_rows, VOCABULARY, generator=generator) * 2
        search.advance(best_tokens(logits, search.num_candidates, search.banned(), search.forced))
        steps += 1
        if steps % steps_apart == 0 or search.answer is not None:
            told.append(decided.new().token_ids)
    return told, search.answer.token_ids


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_beams=st.sampled_from([1, 2, 3, 5, 8]),
    limit=st.integers(1, 25),
    ngram=st.sampled_from([0, 2, 3]),
    early_stopping=st.sampled_from([True, False, "never"]),
    penalty=st.sampled_from([-1.0, 0.0, 1.0, 2.0]),
    special=st.sampled_from([SpecialTokens(), SpecialTokens(forced_bos=None), SpecialTokens(forced_bos=None, forced_eos=None)]),
    steps_apart=st.integers(1, 3),
)
def test_decided_tokens_are_the_answer(seed, num_beams, limit, ngram, early_stopping, penalty, special, steps_apart) -> None:
    """One after the other they are the answer, which they could not be if one were ever taken back."""
    options = GenerationOptions(num_beams, limit, ngram, penalty, early_stopping)
    told, answer = run_search(options, special, seed, steps_apart)
    assert [token for tokens in told for token in tokens] == answer


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), limit=st.integers(1, 20))
def test_a_greedy_search_decides_a_token_at_each_step(seed: int, limit: int) -> None:
    told, _ = run_search(GenerationOptions(1, limit), SpecialTokens(), seed)
    assert all(len(tokens) == 1 for tokens in told)


def test_beams_that_agree_decide_before_the_end() -> None:
    early = 0
    for seed in range(20):
        told, answer = run_search(GenerationOptions(3, 20), SpecialTokens(eos=-1, forced_eos=None), seed)
        early += sum(map(len, told[:-1]))
        assert len(answer) == 20
    assert early > 100  # of 400 tokens


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(write_checkpoint(Path(tmp_path_factory.mktemp("checkpoint"))))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_text_comes_in_whole_characters_and_is_the_decoded_text(tokenizer: Tokenizer, data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from(["é", "日本", "🐱", " a", "</s>", "<loc_7>", "b"]), max_size=6))
    ids = [token for word in words for token in tokenizer.encode(word)[1:-1]]
    ids += data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3), max_size=6))  # bytes that need not be characters
    ids = data.draw(st.permutations(ids)) if data.draw(st.booleans()) else ids
    cut = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=4)))
    text = DecidedText(tokenizer)
    shown = before = ""
    for start, end in zip([0, *cut], [*cut, len(ids)], strict=True):
        shown += text.add(ids[start:end], is_last=False)
        assert text.raw.startswith(before)
        text.raw.encode("utf-8")
        before = text.raw
    shown += text.add([], is_last=True)
    assert text.raw == tokenizer.decode(ids)
    framing = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    if not framing & set(ids):
        assert shown == text.raw


def test_framing_tokens_are_no_text_and_end_a_broken_character(tokenizer: Tokenizer) -> None:
    cat = tokenizer.encode("🐱")[1:-1]
    assert len(cat) > 1
    text = DecidedText(tokenizer)
    assert text.add([tokenizer.bos_token_id, *cat[:-1]], is_last=False) == ""
    assert text.raw == "<s>"
    assert text.add(cat[-1:], is_last=False) == "🐱"
    assert text.add([*cat[:-1], tokenizer.eos_token_id], is_last=True) == "\ufffd"
    assert text.raw == "<s>🐱\ufffd</s>"
