"""Loads against a sender that stands in for a server with a known capacity: what an open and a closed loop have to show."""

from __future__ import annotations

import asyncio
from itertools import repeat
from typing import Any

import pytest

from florence2.load_testing.figures import figures
from florence2.load_testing.measurement import Measurement
from florence2.load_testing.options import Load
from florence2.load_testing.running import Limits, Run, Runner
from florence2.load_testing.sending import Clock
from florence2.load_testing.workload import Planned

PLANNED = Planned("<OD>", "<OD>", 0, 0)


class OneAtATime:
    """Answers one request after the other, each in ``service_s``."""

    def __init__(self, service_s: float, **outcome: Any) -> None:
        self.service_s = service_s
        self.outcome: dict[str, Any] = {"outcome": "answered", **outcome}
        self.lock = asyncio.Lock()
        self.num_in_flight = self.most_in_flight = 0

    async def send(self, planned: Planned, due_s: float, clock: Clock) -> Measurement:
        sent_s = clock()
        self.num_in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.num_in_flight)
        found: dict[str, Any] = self.outcome
        try:
            async with self.lock:
                await asyncio.sleep(self.service_s)
        except asyncio.CancelledError:
            found = {"outcome": "unfinished"}
        self.num_in_flight -= 1
        return Measurement(planned.name, due_s, sent_s, clock(), **found)


def run(sender: OneAtATime, load: Load, limits: Limits, **options: Any) -> Run:
    return asyncio.run(Runner(sender, repeat(PLANNED), limits, **options).run(load))


def test_above_capacity_an_open_loop_shows_the_queue_and_not_the_service() -> None:
    """Forty a second for a second, twenty answered: the last one waits for about a second, although each takes 0.05 s."""
    ran = run(OneAtATime(0.05), Load("rate", 40), Limits(1.0), arrivals="constant")
    found = figures(ran)
    assert (found["sent"], found["answered"]) == (40, 40)
    assert found["latency_s"]["max"] > 0.9
    assert found["latency_growth"] > 0.7
    assert not found["kept_up"]
    assert found["wall_s"] >= 2.0
    assert found["answers_per_s"] <= 20.1
    closed = figures(run(OneAtATime(0.05), Load("concurrency", 1), Limits(0.3)))
    assert closed["latency_s"]["p50"] < 0.3  # one client that waits never sees it


def test_below_capacity_it_shows_the_service() -> None:
    found = figures(run(OneAtATime(0.02), Load("rate", 10), Limits(1.0), arrivals="constant"))
    assert found["sent"] == 10
    assert 0.02 <= found["latency_s"]["p50"] < 0.2
    assert found["kept_up"]


def test_a_request_that_is_sent_late_was_due_all_the_same() -> None:
    """The event loop is blocked for half a second: every request that was due then counts the wait."""

    class Blocking(OneAtATime):
        async def send(self, planned: Planned, due_s: float, clock: Clock) -> Measurement:
            if due_s == 0:
                import time

                time.sleep(0.5)
            return await super().send(planned, due_s, clock)

    ran = run(Blocking(0.0), Load("rate", 20), Limits(1.0), arrivals="constant")
    second = min((one for one in ran.measurements if one.due_s), key=lambda one: one.due_s)
    assert second.due_s == 0.05
    assert second.latency_s > 0.4
    assert any("sent requests late" in warning for warning in figures(ran)["warnings"])
    assert any("was held up" in warning for warning in figures(ran)["warnings"])


def test_a_closed_loop_has_as_many_in_flight_as_it_has_clients() -> None:
    sender = OneAtATime(0.01)
    ran = run(sender, Load("concurrency", 3), Limits(num_requests=20))
    assert sender.most_in_flight == 3
    assert (ran.num_sent, len(ran.measurements)) == (20, 20)
    assert figures(ran)["latency_s"]["p50"] >= 0.02


def test_a_client_that_is_told_to_wait_waits() -> None:
    refusing = OneAtATime(0.0, outcome="refused", error="429", retry_after_s=0.4)
    assert len(run(refusing, Load("concurrency", 2), Limits(1.0)).measurements) <= 6


@pytest.mark.parametrize("load", [Load("rate", 50), Load("concurrency", 2)])
def test_a_run_ends_at_the_first_of_its_limits(load: Load) -> None:
    assert run(OneAtATime(0.0), load, Limits(30.0, 10)).num_sent == 10
    assert run(OneAtATime(0.01), load, Limits(0.3, 10_000)).sending_s == 0.3


@pytest.mark.parametrize("load", [Load("rate", 20), Load("concurrency", 2)])
def test_a_user_ends_a_run_early_and_loses_nothing(load: Load) -> None:
    sender = OneAtATime(0.05)
    wanted: list[int] = []
    ran = run(sender, load, Limits(60.0), is_to_stop=lambda: bool(wanted), on_progress=lambda count: count == 5 and wanted.append(1))
    assert ran.is_cut_short
    assert len(ran.measurements) == ran.num_sent
    assert sender.num_in_flight == 0
    assert ran.sending_s < 10


def test_what_is_in_flight_when_a_user_ends_a_run_is_unfinished() -> None:
    wanted: list[int] = []

    async def stop() -> Run:
        asyncio.get_running_loop().call_later(0.2, wanted.append, 1)
        return await Runner(OneAtATime(60.0), repeat(PLANNED), Limits(60.0), is_to_stop=lambda: bool(wanted)).run(Load("rate", 20))

    ran = asyncio.run(stop())
    assert ran.num_sent == len(ran.measurements) > 0
    assert {one.outcome for one in ran.measurements} == {"unfinished"}
