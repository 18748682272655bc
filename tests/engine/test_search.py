"""The pieces of a search: the n-gram rule, and how a search ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from florence2.engine.next_tokens import Candidates, best_tokens
from florence2.engine.search import BeamSearch, GreedySearch, NGrams, SpecialTokens
from florence2.errors import EngineFailed

EOS = 2


def banned_by_rescanning(sequence: list[int], size: int) -> set[int]:
    if not size:
        return set()
    prefix = sequence[len(sequence) - size + 1 :]
    return {sequence[start + size - 1] for start in range(len(sequence) - size + 1) if sequence[start : start + size - 1] == prefix}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 4), st.integers(0, 29))
def test_ngrams_ban_what_a_rescan_bans(sequence: list[int], size: int, fork_at: int) -> None:
    ngrams = NGrams(size, sequence[0])
    twin = ngrams
    for position, token in enumerate(sequence[1:], start=1):
        if position == fork_at:
            twin = ngrams.copy()
            twin.append(9)  # must not show in the original
        ngrams.append(token)
        if len(sequence[: position + 1]) >= size:
            assert set(ngrams.banned()) == banned_by_rescanning(sequence[: position + 1], size)
    if twin is not ngrams:
        assert set(twin.banned()) == banned_by_rescanning([*sequence[:fork_at], 9], size)


def candidates(rows: list[dict[int, float]], forced: tuple[int, ...] = (0, EOS)) -> Candidates:
    """Rows of token → probability."""
    ordered = [sorted(row.items(), key=lambda item: -item[1]) for row in rows]
    tokens = np.array([[token for token, _ in row] for row in ordered])
    log_probs = np.log(np.array([[probability for _, probability in row] for row in ordered], dtype=np.float32))
    known = {token: np.log(np.array([row.get(token, 1e-6) for row in rows], dtype=np.float32)) for token in forced}
    return Candidates(tokens, log_probs, known)


def test_greedy_by_hand() -> None:
    search = GreedySearch(SpecialTokens(), max_new_tokens=4)
    assert search.tokens == [2]
    search.advance(candidates([{5: 0.9, 0: 0.1}]))
    assert search.tokens == [0]  # forced, although 5 was likelier
    search.advance(candidates([{7: 0.6, EOS: 0.4}]))
    search.advance(candidates([{EOS: 0.7, 7: 0.3}]))
    assert search.answer is not None
    assert search.answer.token_ids == [0, 7, 2]
    assert search.answer.finish_reason == "stop"
    assert search.answer.log_probabilities == pytest.approx([math.log(0.1), math.log(0.6), math.log(0.7)])


@pytest.mark.parametrize(("at_limit", "reason"), [({7: 0.6, EOS: 0.4}, "length"), ({7: 0.4, EOS: 0.6}, "stop")])
@pytest.mark.parametrize("num_beams", [1, 2])
def test_the_forced_end_counts_as_own_only_if_the_model_wanted_it(at_limit: dict[int, float], reason: str, num_beams: int) -> None:
    search = (
        GreedySearch(SpecialTokens(), max_new_tokens=2) if num_beams == 1 else BeamSearch(SpecialTokens(), num_beams=2, max_new_tokens=2)
    )
    search.advance(candidates([{0: 0.9, 5: 0.1}] * num_beams))
    search.advance(candidates([at_limit] * num_beams))
    assert search.answer is not None
    assert search.answer.token_ids == [0, EOS]
    assert search.answer.finish_reason == reason


def test_without_a_forced_end_the_limit_cuts() -> None:
    search = GreedySearch(SpecialTokens(forced_bos=None, forced_eos=None), max_new_tokens=2)
    for _ in range(2):
        search.advance(candidates([{7: 0.6, EOS: 0.4}]))
    assert search.answer is not None
    assert (search.answer.token_ids, search.answer.finish_reason) == ([7, 7], "length")


def test_beams_find_what_greed_misses() -> None:
    search = BeamSearch(SpecialTokens(forced_bos=None), num_beams=2, max_new_tokens=5, early_stopping=True, length_penalty=0.0)
    search.advance(candidates([{5: 0.5, 6: 0.4, 7: 0.05, 8: 0.05}] * 2))
    assert (search.tokens, search.parents) == ([5, 6], [0, 0])
    # After 5 nothing is likely, after 6 the end is certain.
    search.advance(candidates([{7: 0.3, 8: 0.3, 9: 0.2, EOS: 0.2}, {EOS: 0.9, 7: 0.05, 8: 0.03, 9: 0.02}]))
    assert search.answer is None
    search.advance(candidates([{EOS: 0.9, 7: 0.05, 8: 0.03, 9: 0.02}] * 2))
    assert search.answer is not None
    assert search.answer.token_ids == [6, EOS]
    assert search.answer.log_probabilities == pytest.approx([math.log(0.4), math.log(0.9)])


@pytest.mark.parametrize("num_beams", [1, 3])
def test_logits_that_are_not_numbers_are_named(num_beams: int) -> None:
    search = (
        GreedySearch(SpecialTokens(), max_new_tokens=4) if num_beams == 1 else BeamSearch(SpecialTokens(), num_beams=3, max_new_tokens=4)
    )
    broken = best_tokens(torch.full((num_beams, 100), torch.nan), search.num_candidates, forced=(0, 2))
    with pytest.raises(EngineFailed, match="NaN"):
        search.advance(broken)


def test_a_smaller_vocabulary_than_candidates_still_ends() -> None:
    search = BeamSearch(SpecialTokens(), num_beams=4, max_new_tokens=6, no_repeat_ngram_size=1)
    for _ in range(6):
        if search.answer is None:
            search.advance(best_tokens(torch.zeros(4, 4), search.num_candidates, search.banned(), search.forced))
    assert search.answer is not None
