"""Tokens are reported when nothing can take them back."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from florence2.engine.decided import DecidedTokens
from florence2.engine.next_tokens import best_tokens
from florence2.engine.request import start_search
from florence2.engine.search import SpecialTokens
from florence2.request_options import GenerationOptions

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
