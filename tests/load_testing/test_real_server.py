"""Load tests of this project's own server in a process of its own, by both of its APIs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from florence2.load_testing.load_test import Settings, Watcher, measure
from florence2.load_testing.options import Load, parse_questions
from florence2.load_testing.pictures import draw_pictures
from florence2.load_testing.running import Limits
from florence2.load_testing.servers import NothingToMeasure
from tests.server.process import running_server

KEY = "a-key-of-eight"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server(api_keys=[KEY], model=["florence-2-base"], max_requests=12) as address:
        yield address


def measured(url: str, *loads: Load, limits: Limits, **settings: Any) -> list[dict[str, Any]]:
    questions = parse_questions("<CAPTION>=1,<OD>=1,<OPEN_VOCABULARY_DETECTION>=1", (), ("a cat",))
    chosen = Settings(url, loads, limits, api_key=KEY, target_s=30.0, **settings)
    result = asyncio.run(measure(chosen, questions, lambda: draw_pictures(2, (160, 120), 0), Watcher()))
    assert result["server"]["name"].startswith("florence2")
    return result["runs"]


@pytest.mark.parametrize("api", ["auto", "openai"])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_both_apis_whole_and_streamed(url: str, api: str, is_streamed: bool) -> None:
    (run,) = measured(url, Load("concurrency", 3), limits=Limits(num_requests=9), api=api, is_streamed=is_streamed, num_beams=1)
    assert (run["sent"], run["answered"], run["errors"]) == (9, 9, [])
    assert run["tokens_per_s"] > 0
    assert run["goodput"]["share"] == 1
    assert (run["first_event_s"] is not None) is is_streamed


def test_more_than_it_takes_is_refused_and_said_when_to_come_back(url: str) -> None:
    (run,) = measured(url, Load("rate", 100), limits=Limits(num_requests=60), num_beams=4)
    assert run["answered"] + run["refused"] == 60
    assert run["refused"] > 0
    assert run["retry_after_s"]["min"] > 0
    assert run["errors"][0]["error"] == "429"


def test_without_a_key_it_is_the_key_that_is_missing(url: str) -> None:
    chosen = Settings(url, (Load("rate", 1),), Limits(num_requests=1))
    with pytest.raises(NothingToMeasure, match=r"wants a key \(401\): set FLORENCE2_API_KEY"):
        asyncio.run(measure(chosen, parse_questions("<OD>=1", (), ()), lambda: draw_pictures(1, (64, 48), 0), Watcher()))
    wrong = replace(chosen, api_key="not-the-key")
    with pytest.raises(NothingToMeasure, match=r"does not take this key \(401\)"):
        asyncio.run(measure(wrong, parse_questions("<OD>=1", (), ()), lambda: draw_pictures(1, (64, 48), 0), Watcher()))
