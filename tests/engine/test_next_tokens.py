"""The best next tokens, by the compiled routines and by PyTorch alone: both give the same, each row by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from florence2.engine.next_tokens import Candidates, best_by_pytorch, best_tokens
from florence2.model.cpu import kernels

Choose = Callable[..., Candidates]


@pytest.fixture(params=["compiled", "pytorch"])
def choose(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Choose:
    kernels.prepare()
    if request.param == "pytorch":
        monkeypatch.setattr("florence2.engine.next_tokens.kernels.loaded", lambda: None)
    elif kernels.loaded() is None:
        pytest.skip("no compiled routines on this machine")
    return best_tokens


def random_logits(rows: int, vocabulary: int, seed: int = 0) -> Tensor:
    return 5 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("vocabulary", [3, 64, 130, 1000, 5131])
@pytest.mark.parametrize("count", [1, 2, 6, 32])
def test_they_are_those_of_the_largest_log_probabilities(choose: Choose, vocabulary: int, count: int) -> None:
    logits = random_logits(5, vocabulary, vocabulary + count)
    log_probs = torch.log_softmax(logits.double(), -1)
    expected = log_probs.topk(min(count, vocabulary))
    best = choose(logits.clone(), count, forced=(0, 2))
    assert (best.token_ids == expected.indices.numpy()).all()
    assert best.log_probs == pytest.approx(expected.values.numpy(), abs=2e-5)
    assert best.forced_log_probs[2] == pytest.approx(log_probs[:, 2].numpy(), abs=2e-5)


def test_the_compiled_ones_are_as_exact_as_their_type() -> None:
    kernels.prepare()
    if kernels.loaded() is None:
        pytest.skip("no compiled routines on this machine")
    logits = random_logits(4, 51_289)
    exact = torch.log_softmax(logits.double(), -1)
    best = best_tokens(logits.clone(), 8)
    errors = np.abs(exact.gather(1, torch.from_numpy(best.token_ids)).numpy() - best.log_probs)
    assert (errors <= 3e-7 + np.spacing(np.abs(best.log_probs))).all()  # PyTorch's own are up to 1e-5 away


def test_banned_tokens_are_never_taken_and_leave_the_others_as_they_are(choose: Choose) -> None:
    logits = random_logits(3, 500)
    free = choose(logits.clone(), 4)
    first = int(free.token_ids[1, 0])
    best = choose(logits.clone(), 3, [(), (first,), ()], forced=(first,))
    assert (best.token_ids[1] == free.token_ids[1, 1:]).all()
    assert (best.log_probs[1] == free.log_probs[1, 1:]).all()
    assert (best.token_ids[[0, 2]] == free.token_ids[[0, 2], :3]).all()
    assert best.forced_log_probs[first][1] == free.log_probs[1, 0]  # the model's own, before the rule


def test_where_only_banned_tokens_are_left_they_are_impossible(choose: Choose) -> None:
    best = choose(torch.tensor([[3.0, 2.0, 1.0]]), 3, [(0, 2)])
    assert best.token_ids[0, 0] == 1
    assert best.log_probs[0, 1:].tolist() == [-np.inf, -np.inf]
    assert sorted(best.token_ids[0]) == [0, 1, 2]


def test_ties_go_to_the_lower_token(choose: Choose) -> None:
    logits = torch.zeros(1, 5)
    logits[0, [1, 3]] = 1.0
    assert choose(logits, 5).token_ids.tolist() == [[1, 3, 0, 2, 4]]


def test_half_precision_is_widened_first(choose: Choose) -> None:
    logits = random_logits(2, 300).to(torch.bfloat16)
    best = choose(logits.clone(), 2)
    assert best.log_probs == pytest.approx(torch.log_softmax(logits.double(), -1).topk(2).values.numpy(), abs=1e-5)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.nan])
@pytest.mark.parametrize("place", [0, 70, 129])
def test_a_row_that_is_not_numbers_says_so_and_leaves_the_others(choose: Choose, wrong: float, place: int) -> None:
    logits = random_logits(2, 130)
    alone = choose(logits[1:].clone(), 3, forced=(4,))
    logits[0, place] = wrong
    best = choose(logits, 3, forced=(4,))
    assert np.isnan(best.log_probs[0]).all()
    assert np.isnan(best.forced_log_probs[4][0])
    assert (best.log_probs[1] == alone.log_probs[0]).all()
    assert np.isnan(choose(torch.full((1, 130), -torch.inf), 3).log_probs).all()


def test_a_token_that_the_model_rules_out_is_the_last(choose: Choose) -> None:
    logits = torch.zeros(1, 70)
    logits[0, :69] = -torch.inf
    best = choose(logits, 2, forced=(5,))
    assert best.token_ids[0, 0] == 69
    assert best.log_probs[0].tolist() == [0.0, -np.inf]
    assert best.forced_log_probs[5][0] == -np.inf


@pytest.mark.parametrize("locations", [range(100, 137), [7, 3, 411]])
def test_locations_are_probabilities_of_all_tokens_banned_ones_included(choose: Choose, locations: Sequence[int]) -> None:
    logits = random_logits(3, 500)
    best = choose(logits.clone(), 2, [(), tuple(locations), ()], locations=locations)
    expected = torch.softmax(logits.double(), -1)[:, list(locations)].numpy()
    assert best.locations == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert choose(logits, 2).locations is None


@given(st.integers(1, 7), st.integers(1, 400), st.integers(1, 40), st.integers(0, 2**31))
def test_both_choose_alike_and_a_row_does_not_depend_on_the_others(rows: int, vocabulary: int, count: int, seed: int) -> None:
    kernels.prepare()
    logits = random_logits(rows, vocabulary, seed)
    banned = [tuple(range(row % 3, vocabulary, vocabulary // 2 + 1)) if row % 2 else () for row in range(rows)]
    forced, locations = (0, vocabulary - 1), range(vocabulary // 2, vocabulary)
    best = best_tokens(logits.clone(), count, banned, forced, locations)
    other = best_by_pytorch(logits.clone(), min(count, vocabulary), banned, forced, locations)
    allowed = np.isfinite(other.log_probs)
    assert (best.token_ids[allowed] == other.token_ids[allowed]).all()
    assert best.log_probs == pytest.approx(other.log_probs, abs=2e-5)
    row = seed % rows
    alone = best_tokens(logits[row : row + 1].clone(), count, [banned[row]], forced, locations)
    assert (alone.token_ids[0] == best.token_ids[row]).all()
    assert (alone.log_probs[0] == best.log_probs[row]).all()
    assert alone.locations is not None
    assert best.locations is not None
    assert (alone.locations[0] == best.locations[row]).all()
