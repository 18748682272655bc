"""The figures are right: of measurements that are made up, so that each figure is known."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from florence2.load_testing.figures import figures, percentiles
from florence2.load_testing.load_test import last_kept_up
from florence2.load_testing.measurement import Measurement
from florence2.load_testing.options import Load
from florence2.load_testing.running import Run
from florence2.load_testing.sending import OWN_LIMIT


def answer(due_s: float, latency_s: float, *, lag_s: float = 0.0, name: str = "<OD>", **found: Any) -> Measurement:
    return Measurement(name, due_s, due_s + lag_s, due_s + latency_s, found.pop("outcome", "answered"), status=200, **found)


def run_of(*measurements: Measurement, sending_s: float = 10.0, kind: str = "rate") -> Run:
    return Run(Load(kind, 10), list(measurements), len(measurements), sending_s)


def test_percentiles() -> None:
    assert percentiles(range(101)) == {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "mean": 50, "max": 100}
    assert percentiles([]) is None


def test_latency_counts_from_when_a_request_was_due() -> None:
    found = figures(run_of(answer(1, 3.0, lag_s=2.0)))
    assert found["latency_s"]["max"] == 3
    assert found["generator"]["send_lag_s"]["max"] == 2


def test_goodput_is_of_all_that_was_asked() -> None:
    slow, fast = [answer(0.1, 3.0)] * 3, [answer(0.1, 0.5)] * 5
    others = [answer(0.1, 0.01, outcome="refused", error="429", retry_after_s=2.0), answer(0.1, 0.1, outcome="failed", error="500")]
    found = figures(run_of(*slow, *fast, *others), target_s=1.0)
    assert found["goodput"] == {"target_s": 1.0, "answers_per_s": 0.5, "share": 0.5}
    assert (found["sent"], found["answered"], found["refused"], found["failed"]) == (10, 8, 1, 1)
    assert found["answers_per_s"] == 0.8
    assert found["retry_after_s"] == {"min": 2, "p50": 2, "max": 2}
    assert found["latency_s"]["p50"] == 0.5  # of answers alone: a quick refusal is none
    assert figures(run_of(*slow))["goodput"] is None


def test_throughput_counts_the_time_after_the_last_request_was_sent() -> None:
    found = figures(run_of(answer(1, 0.5), answer(9, 11.0), sending_s=10))
    assert found["wall_s"] == 20
    assert found["answers_per_s"] == 0.1


def test_tokens_where_the_server_counts_them() -> None:
    assert figures(run_of(answer(0, 1, num_tokens=30), answer(1, 1, num_tokens=20), answer(1, 1)))["tokens_per_s"] == 5
    assert figures(run_of(answer(0, 1)))["tokens_per_s"] is None


def test_streams() -> None:
    found = figures(run_of(answer(1, 2, first_event_s=1.5, gaps_s=array("d", [0.1, 0.3])), answer(2, 2, first_event_s=2.25)))
    assert (found["first_event_s"]["p50"], found["first_event_s"]["max"]) == (0.375, 0.5)
    assert found["between_events_s"]["mean"] == 0.2


def test_errors_by_kind_the_most_first() -> None:
    failed = [answer(0, 1, outcome="failed", error=kind, message=f"said {kind}") for kind in ("500", "timeout", "500")]
    assert figures(run_of(*failed, answer(0, 1)))["errors"] == [
        {"error": "500", "outcome": "failed", "count": 2, "example": "said 500"},
        {"error": "timeout", "outcome": "failed", "count": 1, "example": "said timeout"},
    ]


def test_by_question() -> None:
    found = figures(run_of(answer(0, 1), answer(0, 3), answer(0, 9, name="<OCR>"), answer(0, 1, name="<OCR>", outcome="failed", error="x")))
    assert {name: (one["answered"], one["latency_s"]["max"]) for name, one in found["by_question"].items()} == {
        "<OCR>": (1, 9),
        "<OD>": (2, 3),
    }
    assert found["by_question"]["<OCR>"]["failed"] == 1


def test_seconds_add_up() -> None:
    found = figures(run_of(answer(0.2, 0.1), answer(0.4, 1.8), answer(1.1, 0.1, outcome="refused", error="429")))["per_second"]
    columns = ("second", "sent", "answered", "refused", "failed", "in_flight")
    assert [tuple(one[name] for name in columns) for one in found] == [(0, 2, 1, 0, 0, 1), (1, 1, 0, 1, 0, 1), (2, 0, 1, 0, 0, 0)]
    assert found[0]["latency_s"]["max"] == 1.8  # of what was due in it
    assert found[1]["latency_s"] is None


def test_the_curve_runs_from_the_shortest_to_the_longest() -> None:
    curve = figures(run_of(*(answer(0, 1 + number / 100) for number in range(101))))["latency_quantiles_s"]
    assert len(curve) == 101
    assert (curve[0], curve[50], curve[100]) == (1, 1.5, 2)


def test_a_queue_that_grows_is_told_from_one_that_does_not() -> None:
    """At twice the capacity each second of requests takes two, so that latency grows by a second a second."""
    over = figures(run_of(*(answer(number / 10, 0.1 + number / 10) for number in range(100))))
    steady = figures(run_of(*(answer(number / 10, 0.3 + number % 3 / 10) for number in range(100))))
    assert over["latency_growth"] == pytest.approx(1, rel=0.01)
    assert (over["kept_up"], steady["kept_up"]) == (False, True)
    refusing = figures(run_of(*[answer(0, 1)] * 94, *[answer(0, 0, outcome="refused", error="429")] * 6))
    assert not refusing["kept_up"]


def test_the_last_load_that_was_kept_up_with() -> None:
    runs = [{"kept_up": kept_up, "load": {"rate": rate}} for rate, kept_up in ((1, True), (2, True), (4, False), (8, True))]
    assert last_kept_up(runs) == runs[1]
    assert last_kept_up(runs[2:]) is None


def test_a_generator_that_falls_behind_says_so() -> None:
    assert figures(run_of(*[answer(0, 1, lag_s=0.05)] * 10))["warnings"] == []  # a twentieth of the latency
    late = run_of(*[answer(0, 1, lag_s=0.3)] * 10)
    assert "sent requests late: by 300 ms" in figures(late)["warnings"][0]
    held_up = run_of(*[answer(0, 0.05)] * 10)
    held_up.delays_s.extend([0.0, 0.5, 0.5])
    assert "was held up: by 500 ms" in figures(held_up)["warnings"][0]
    full = run_of(answer(0, 1), answer(0, 1, outcome="failed", error=OWN_LIMIT))
    assert "not on the server" in figures(full)["warnings"][0]


def test_clients_that_wait_for_their_answers_have_no_time_at_which_they_are_late() -> None:
    assert figures(run_of(answer(0, 1), kind="concurrency"))["generator"]["send_lag_s"] is None


def test_most_in_flight() -> None:
    assert figures(run_of(answer(0, 2), answer(1, 2), answer(2.5, 1)))["generator"]["most_in_flight"] == 2


def test_nothing_at_all() -> None:
    found = figures(run_of(sending_s=0.0), target_s=1.0)
    assert (found["sent"], found["latency_s"], found["per_second"], found["kept_up"]) == (0, None, [], False)
