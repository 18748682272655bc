"""What a replica tells Ray Serve: its rows, and whether it has an engine."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import pytest

from florence2.cluster.engine_health import LOST_S, EngineHealth, ReplicaUnhealthy
from florence2.cluster.rows_asked import RowsAsked


def test_rows_are_counted_until_the_request_ends() -> None:
    rows = RowsAsked()
    with rows.of(3) as add_pictures, rows.of(1):
        assert (rows.num_rows, rows.num_requests) == (4, 2)
        add_pictures(4)  # five pictures of three beams
        assert (rows.num_rows, rows.num_requests) == (16, 2)
    assert (rows.num_rows, rows.num_requests) == (0, 0)


def test_rows_of_a_request_that_fails_are_counted_no_more() -> None:
    rows = RowsAsked()
    with suppress(ValueError), rows.of(2) as add_pictures:
        add_pictures(1)
        raise ValueError("wrong")
    assert (rows.num_rows, rows.num_requests) == (0, 0)


@dataclass
class Engine:
    """A process of engines, the models in it, and a clock."""

    is_running: bool = True
    is_preloaded: bool = True
    last_failure: str = ""
    now: float = 0.0

    def health(self) -> EngineHealth:
        return EngineHealth(self, self, lambda: self.now)


def test_a_replica_whose_engine_comes_back_stays() -> None:
    engine = Engine()
    health = engine.health()
    engine.is_running = False
    engine.now = LOST_S
    health.check()
    engine.is_running = True
    health.look()
    engine.is_running = False
    engine.now = 2 * LOST_S
    health.check()


@pytest.mark.parametrize("attribute", ["is_running", "is_preloaded"])
def test_a_replica_without_an_engine_has_to_go(attribute: str) -> None:
    engine = Engine(last_failure="it was killed by signal 9")
    health = engine.health()
    setattr(engine, attribute, False)
    engine.now = LOST_S + 1
    with pytest.raises(ReplicaUnhealthy, match="no engine for 121 s: it was killed by signal 9"):
        health.check()


def test_an_engine_that_ends_while_it_loads_is_not_back() -> None:
    engine = Engine()
    health = engine.health()
    engine.is_preloaded = False
    for second in range(int(LOST_S) + 2):
        engine.now, engine.is_running = float(second), second % 2 == 0
        health.look()
    with pytest.raises(ReplicaUnhealthy):
        health.check()
