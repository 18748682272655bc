"""Options are refused by name before anything is queued."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from florence2.engine.request import start_search
from florence2.engine.search import BeamSearch, GreedySearch, SpecialTokens
from florence2.errors import EngineFailed, InvalidOption
from florence2.request_options import GenerationOptions, as_flag
from tests.engine.fakes import request


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("num_beams", 0, "from 1 to 16"),
        ("num_beams", 17, "from 1 to 16"),
        ("num_beams", True, "from 1 to 16"),
        ("num_beams", 3.0, "from 1 to 16"),
        ("num_beams", "3", "from 1 to 16"),
        ("max_new_tokens", 0, "at least 1"),
        ("max_new_tokens", False, "at least 1"),
        ("no_repeat_ngram_size", -1, "at least 0"),
        ("no_repeat_ngram_size", True, "at least 0"),
        ("length_penalty", "1", "from -10 to 10"),
        ("length_penalty", float("nan"), "from -10 to 10"),
        ("length_penalty", float("inf"), "from -10 to 10"),
        ("length_penalty", True, "from -10 to 10"),
        ("early_stopping", 1, "True, False or"),
        ("early_stopping", "always", "True, False or"),
        ("early_stopping", None, "True, False or"),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: object, wanted: str) -> None:
    with pytest.raises(InvalidOption, match=wanted) as caught:
        GenerationOptions(**{name: value})  # type: ignore[arg-type]
    assert caught.value.field == name
    assert name in caught.value.message
    assert repr(value) in caught.value.message


def test_one_beam_is_greedy() -> None:
    assert isinstance(start_search(GenerationOptions(num_beams=1), SpecialTokens()), GreedySearch)
    beams = start_search(GenerationOptions(num_beams=5), SpecialTokens())
    assert isinstance(beams, BeamSearch)
    assert beams.num_rows == 5


def test_a_request_has_one_outcome() -> None:
    one = request(GenerationOptions())
    one.fail(EngineFailed("first"))
    one.fail(EngineFailed("second"))
    one.drop()
    assert str(one.future.exception(0)) == "first"
    assert one.is_settled


def test_an_answer_after_cancelling_is_dropped() -> None:
    one = request(GenerationOptions())
    assert one.future.cancel()
    one.fail(EngineFailed("late"))
    assert one.future.cancelled()
    assert one.is_settled


INTEGERS: list[Any] = [2, np.int64(2), np.uint8(2), np.array(2), torch.tensor(2)]


@pytest.mark.parametrize("value", INTEGERS, ids=repr)
@pytest.mark.parametrize("name", ["num_beams", "max_new_tokens", "no_repeat_ngram_size"])
def test_integers_of_any_library_are_taken(name: str, value: Any):
    options = GenerationOptions(**{name: value})
    assert getattr(options, name) == 2
    assert type(getattr(options, name)) is int
    assert options == GenerationOptions(**{name: 2})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [*INTEGERS, 2.0, np.float32(2), np.float64(2), torch.tensor(2.0), Fraction(2)], ids=repr)
def test_numbers_of_any_library_are_taken(value: Any):
    assert type(GenerationOptions(length_penalty=value).length_penalty) is float
    assert GenerationOptions(length_penalty=value).length_penalty == 2.0


@pytest.mark.parametrize("value", [True, np.True_, np.array(True), torch.tensor(True)], ids=repr)
def test_booleans_of_any_library_are_flags_and_no_numbers(value: Any):
    assert GenerationOptions(early_stopping=value).early_stopping is True
    assert as_flag(value) is True
    for name in ("num_beams", "max_new_tokens", "no_repeat_ngram_size", "length_penalty"):
        with pytest.raises(InvalidOption, match=f"{name} must be a"):
            GenerationOptions(**{name: value})


@pytest.mark.parametrize("value", [1, 0, np.int64(1), "true", None, np.array([True])], ids=repr)
def test_what_is_no_boolean_is_no_flag(value: Any):
    assert as_flag(value) is None


@pytest.mark.parametrize(
    "value",
    [np.float64(2), np.array([2]), "2", torch.tensor([2, 3]), 2 + 0j, float("nan"), "x" * 10_000],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_integer_is_refused_briefly(value: Any):
    with pytest.raises(InvalidOption, match="num_beams must be an integer from 1 to 16, got") as told:
        GenerationOptions(num_beams=value)
    assert len(told.value.message) < 200
