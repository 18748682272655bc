"""Whole load tests of a scripted server: what is found out about it, what stops a test before it begins, and figures that are known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from florence2.errors import InvalidOption
from florence2.load_testing.load_test import Settings, Watcher, measure
from florence2.load_testing.options import Load, parse_questions
from florence2.load_testing.pictures import Pictures, draw_pictures
from florence2.load_testing.running import Limits
from florence2.load_testing.servers import NothingToMeasure
from tests.load_testing.scripted import ANSWER, INFO, REGISTRY, Asked, Reply, scripted

KEY = "secret-key-1"
MODELS = {"data": [{"id": "gpt"}]}
CHOICES = {"choices": [{"message": {"content": "a cat"}}]}


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return draw_pictures(1, (64, 48), seed=0)


async def at_once(_: Asked) -> Reply:
    return Reply({**ANSWER, **CHOICES})


def measured(url: str, pictures: Pictures, *loads: Load, limits: Limits = Limits(num_requests=2), **settings: Any) -> dict[str, Any]:  # noqa: B008
    chosen = Settings(url, loads or (Load("concurrency", 1),), limits, **{"warm_up": 0, **settings})
    return asyncio.run(measure(chosen, parse_questions("<CAPTION>=1", (), ()), lambda: pictures, Watcher()))


@pytest.mark.parametrize(
    ("pages", "api", "model", "expected"),
    [
        ({"/info": INFO, "/model/registry": REGISTRY}, "auto", None, ("lmm", "tiny", "/infer/lmm")),
        ({"/info": INFO, "/v1/models": MODELS}, "auto", None, ("lmm", "gpt", "/infer/lmm")),
        ({"/v1/models": MODELS}, "auto", None, ("openai", "gpt", "/v1/chat/completions")),
        ({"/info": INFO, "/v1/models": MODELS}, "openai", None, ("openai", "gpt", "/v1/chat/completions")),
        ({"/v1/models": MODELS}, "auto", "mine", ("openai", "mine", "/v1/chat/completions")),
        ({}, "lmm", "mine", ("lmm", "mine", "/infer/lmm")),
    ],
)
def test_the_server_is_asked_what_it_is(
    pictures: Pictures, pages: Mapping[str, Any], api: str, model: str | None, expected: tuple[str, str, str]
) -> None:
    with scripted(at_once, pages) as server:
        result = measured(server.url, pictures, api=api, model=model)
    assert (result["server"]["api"], result["server"]["model"], server.asked[0].path) == expected
    assert result["runs"][0]["answered"] == 2


def test_only_our_server_is_asked_to_count_tokens(pictures: Pictures) -> None:
    for name, asks in (("florence2 server", True), ("Roboflow Inference Server", False)):
        with scripted(at_once, {"/info": {"name": name}, "/model/registry": REGISTRY}) as server:
            measured(server.url, pictures)
        assert ("usage" in server.asked[0].json) is asks


@pytest.mark.parametrize(
    ("pages", "options", "told"),
    [({}, {}, "say --api lmm or --api openai"), ({"/info": INFO}, {}, "--model is missing"), ({}, {"api": "lmm"}, "--model is missing")],
)
def test_what_can_not_be_found_out_is_asked_for(
    pictures: Pictures, pages: Mapping[str, Any], options: Mapping[str, Any], told: str
) -> None:
    with scripted(at_once, pages) as server, pytest.raises(InvalidOption, match=told):
        measured(server.url, pictures, **options)


def test_nothing_is_measured_where_nobody_listens(pictures: Pictures) -> None:
    with pytest.raises(NothingToMeasure, match=r"http://127.0.0.1:9/info can't be reached"):
        measured("http://127.0.0.1:9", pictures)


def test_nothing_is_measured_where_every_request_would_be_refused(pictures: Pictures) -> None:
    async def no_entry(_: Asked) -> Reply:
        return Reply({"message": "no such key"}, status=401)

    with scripted(no_entry) as server, pytest.raises(NothingToMeasure, match=r"answered with 401.*no such key"):
        measured(server.url, pictures)
    assert len(server.asked) == 1


def test_a_server_that_is_not_ready_yet_is_asked_again(pictures: Pictures) -> None:
    async def later(asked: Asked) -> Reply:
        return Reply({"message": "loading"}, status=503, headers={"Retry-After": "0.1"}) if asked.number < 2 else Reply()

    with scripted(later) as server:
        assert measured(server.url, pictures)["runs"][0]["answered"] == 2


def test_known_delays_give_known_figures(pictures: Pictures) -> None:
    """Of ten answers, eight take 0.1 s and two 0.8 s, one client after the other; the probe and three of the warm-up count for nothing."""

    async def slow_at_times(asked: Asked) -> Reply:
        return Reply(delay_s=0.0 if asked.number < 4 else 0.8 if asked.number in (6, 9) else 0.1)

    with scripted(slow_at_times) as server:
        run = measured(server.url, pictures, limits=Limits(num_requests=10), warm_up=4, target_s=0.5)["runs"][0]
    assert len(server.asked) == 14
    assert (run["sent"], run["answered"]) == (10, 10)
    assert 0.1 <= run["latency_s"]["p50"] < 0.35
    assert 0.8 <= run["latency_s"]["p95"] <= run["latency_s"]["max"] < 1.3
    assert run["goodput"]["share"] == 0.8
    assert run["goodput"]["answers_per_s"] == pytest.approx(8 / run["wall_s"], rel=0.001)
    assert run["answers_per_s"] == pytest.approx(10 / run["wall_s"], rel=0.001)
    assert 2.4 <= run["wall_s"] < 5


def test_loads_run_one_after_the_other(pictures: Pictures) -> None:
    """At ten a second all is answered; at a hundred the server, which has two places, refuses."""
    num_running = 0

    async def two_places(_: Asked) -> Reply:
        nonlocal num_running
        if num_running == 2:
            return Reply({"message": "full"}, status=429, headers={"Retry-After": "1"})
        num_running += 1
        await asyncio.sleep(0.08)
        num_running -= 1
        return Reply()

    with scripted(two_places) as server:
        result = measured(
            server.url, pictures, Load("rate", 8), Load("rate", 100), limits=Limits(1.0), arrivals="constant", target_s=1.0, keeps_raw=True
        )
    few, many = result["runs"]
    assert (few["sent"], few["answered"], few["kept_up"]) == (8, 8, True)
    assert many["sent"] == 100
    assert many["answered"] + many["refused"] == 100
    assert many["refused"] > 30
    assert (many["kept_up"], many["retry_after_s"]["max"], many["errors"][0]["error"]) == (False, 1, "429")
    assert result["kept_up_with"] == {"rate": 8}
    assert [len(run["requests"]) for run in result["runs"]] == [8, 100]


def test_the_result_has_all_but_the_key(pictures: Pictures) -> None:
    with scripted(at_once) as server:
        result = measured(server.url, pictures, api_key=KEY, headers={"x-secret": KEY}, seed=4)
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    text = json.dumps(result)
    assert KEY not in text
    assert (result["format"], result["settings"]["seed"], result["settings"]["has_key"], result["settings"]["headers"]) == (
        1,
        4,
        True,
        ["x-secret"],
    )
    assert result["generator"]["cores"] >= 1
    assert result["generator"]["versions"]["florence2"]


def test_the_same_seed_sends_the_same_bytes(pictures: Pictures) -> None:
    bodies = []
    for seed in (1, 1, 2):
        with scripted(at_once) as server:
            measured(server.url, pictures, limits=Limits(num_requests=5), seed=seed)
        bodies.append([asked.body for asked in server.asked])
    assert bodies[0] == bodies[1]
    assert len(set(bodies[0])) == 6  # the pictures differ
