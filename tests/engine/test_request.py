"""Options are refused by name before anything is queued."""

from __future__ import annotations

import pytest

from florence2.engine.request import GenerationOptions, start_search
from florence2.engine.search import BeamSearch, GreedySearch, SpecialTokens
from florence2.errors import EngineFailed, InvalidOption
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
