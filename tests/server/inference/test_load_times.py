"""How long a model that is being loaded is said to take."""

from __future__ import annotations

from florence2.server.inference.load_times import LoadTimes


def test_first_loading_is_half_done() -> None:
    now = [0.0]
    times = LoadTimes(lambda: now[0])
    times.begin("a")
    assert times.seconds_left("a") == 1
    now[0] = 12.0
    assert times.seconds_left("a") == 12
    now[0] = 600.0
    assert times.seconds_left("a") == 60


def test_second_loading_takes_as_long_as_the_first() -> None:
    now = [0.0]
    times = LoadTimes(lambda: now[0])
    times.begin("a")
    now[0] = 30.0
    times.end("a")
    times.begin("a")
    now[0] = 40.0
    assert times.seconds_left("a") == 20
    now[0] = 65.0
    assert times.seconds_left("a") == 35  # longer than last time
