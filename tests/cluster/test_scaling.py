"""How many replicas the rows need: by Serve's own decision, over curves of load."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ray.serve", reason="Ray is not installed: pip install 'florence2-engine[cluster]'")

from ray import cloudpickle
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingContext

from florence2.cluster.scaling import LOOK_BACK_S, REQUESTS, ROWS, autoscaling, rows_policy

TICK_S = 1.0
START_S = 8.0
TARGET = 32
levels = st.one_of(st.just(0.0), st.floats(0.05, 12))  # of load: the replicas that it needs


@dataclass
class Cluster:
    """Replicas that Serve's controller counts by the policy; what they need comes from outside."""

    min_replicas: int = 1
    max_replicas: int = 8
    downscale_delay_s: float = 60.0
    running: int = 1
    target: int = 1
    now: float = 1000.0
    history: list[int] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    starting: list[float] = field(default_factory=list)
    past: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = autoscaling(
            self.min_replicas, self.max_replicas, TARGET, upscale_delay_s=5.0, downscale_delay_s=self.downscale_delay_s
        )
        policy = self.config.policy.get_policy()
        self.policy: Callable[[Any], tuple[int, dict[str, Any]]] = _apply_autoscaling_config(policy)

    def step(self, rows: float, queued: float = 0.0, beams: int = 1) -> int:
        """One decision, with so many rows in all replicas, and so many requests that wait for one."""
        self.now += TICK_S
        self.running += sum(at <= self.now for at in self.starting)
        self.starting = [at for at in self.starting if at > self.now]
        self.past = [*self.past, (self.now, rows if self.running else 0.0)]
        self.past = [(at, value) for at, value in self.past if at > self.now - LOOK_BACK_S]
        mean = sum(value for _, value in self.past) / len(self.past)
        reported = {ROWS: {"a": mean}, REQUESTS: {"a": mean / beams}} if self.running else {}
        decided, self.state = self.policy(self._context(reported, rows / beams + queued, queued))
        self._scale(max(self.min_replicas, min(self.max_replicas, math.ceil(decided))))
        return self.target

    def _scale(self, target: int) -> None:
        self.history.append(target)
        self.starting += [self.now + START_S] * max(target - self.target, 0)
        if target < self.target:
            leaving = self.target - target
            self.starting, left = self.starting[leaving:], max(leaving - len(self.starting), 0)
            self.running -= left
        self.target = target

    def _context(self, reported: dict[str, Any], total: float, queued: float) -> AutoscalingContext:
        context = dict.fromkeys(("deployment_id", "deployment_name", "app_name", "last_scale_up_time", "last_scale_down_time"))
        return AutoscalingContext(
            **context,  # type: ignore[arg-type]
            current_num_replicas=self.running,
            target_num_replicas=self.target,
            running_replicas=[],
            total_num_requests=total,
            total_queued_requests=queued,
            aggregated_metrics=reported,
            raw_metrics={},
            capacity_adjusted_min_replicas=self.min_replicas,
            capacity_adjusted_max_replicas=self.max_replicas,
            policy_state=self.state,
            current_time=self.now,
            config=self.config,
        )

    def hold(self, seconds: float, rows: float | Callable[[float], float], **more: Any) -> Iterator[int]:
        """The targets over a time of constant load, or of one that is a function of the seconds since its beginning."""
        for index in range(round(seconds / TICK_S)):
            yield self.step(rows(index * TICK_S) if callable(rows) else rows, **more)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve's delays by the cluster's own time."""
    clock = SimpleNamespace(now=0.0)
    step = Cluster.step

    def timed(self: Cluster, *args: Any, **more: Any) -> int:
        clock.now = self.now + TICK_S
        return step(self, *args, **more)

    monkeypatch.setattr("ray.serve.autoscaling_policy.time", SimpleNamespace(time=lambda: clock.now))
    monkeypatch.setattr(Cluster, "step", timed)


def num_changes(targets: list[int]) -> int:
    return sum(one != other for one, other in pairwise(targets))


def test_as_many_replicas_as_the_rows_need() -> None:
    cluster = Cluster()
    assert list(cluster.hold(30, 3.5 * TARGET))[-1] == 4
    assert list(cluster.hold(30, 4.0 * TARGET))[-1] == 4  # exactly full is not more than full


def test_replicas_are_added_after_their_delay_and_no_sooner() -> None:
    cluster = Cluster()
    targets = list(cluster.hold(30, 3.5 * TARGET))
    first = next(index for index, target in enumerate(targets) if target > 1) * TICK_S
    assert 5.0 <= first <= 5.0 + TICK_S


def test_a_burst_shorter_than_the_delay_adds_none() -> None:
    cluster = Cluster()
    targets = [*cluster.hold(20, 10), *cluster.hold(2, 5 * TARGET), *cluster.hold(20, 10)]
    assert set(targets) == {1}


def test_requests_that_no_replica_takes_count_by_the_rows_of_others() -> None:
    plain, beams = Cluster(), Cluster()
    *_, by_ones = plain.hold(20, TARGET, queued=TARGET)
    *_, by_threes = beams.hold(20, TARGET, queued=TARGET, beams=3)
    assert (by_ones, by_threes) == (2, 4)


def test_from_zero_and_back() -> None:
    cluster = Cluster(min_replicas=0, running=0, target=0)
    assert set(cluster.hold(30, 0)) == {0}
    assert cluster.step(0, queued=3) == 1  # at once: the cold start itself takes long enough
    *_, busy = cluster.hold(30, 5)
    assert busy == 1
    quiet = list(cluster.hold(70, 0))
    assert quiet[-1] == 0
    assert quiet.index(0) * TICK_S >= 60.0


def test_what_was_needed_a_moment_ago_stays() -> None:
    """A quiet moment at the end of the delay takes no replicas that were needed during it."""
    cluster = Cluster()
    list(cluster.hold(40, 5 * TARGET))
    assert cluster.target == 5
    targets = list(cluster.hold(120, lambda s: 0.2 * TARGET if 55 <= s < 66 else 3.0 * TARGET))
    assert min(targets) == 3
    assert num_changes([5, *targets]) == 1


@settings(max_examples=20, deadline=None)
@given(level=st.floats(0, 6), swing=st.floats(0, 0.9), period_s=st.floats(2, 50), sharpness=st.sampled_from([1, 9]))
def test_no_flapping(level: float, swing: float, period_s: float, sharpness: int) -> None:
    """A load that goes up and down faster than replicas leave never takes one away that it needs again."""
    cluster = Cluster()

    def rows(s: float) -> float:
        wave = math.tanh(sharpness * math.sin(math.tau * s / period_s))
        return level * (1 + swing * wave) * TARGET

    list(cluster.hold(180, rows))
    targets = list(cluster.hold(240, rows))
    assert num_changes(targets) <= 1
    assert cluster.min_replicas <= min(targets)
    assert max(targets) <= cluster.max_replicas
    assert max(targets) <= max(1, math.ceil(round(level * (1 + swing), 6)))


@settings(max_examples=20, deadline=None)
@given(loads=st.lists(st.tuples(levels, st.floats(1, 200)), max_size=5), least=st.sampled_from([0, 1, 2]), last=levels)
def test_any_load_ends_with_the_replicas_that_it_needs(loads: list[tuple[float, float]], least: int, last: float) -> None:
    cluster = Cluster(min_replicas=least, running=least, target=least)
    for level, seconds in loads:
        list(cluster.hold(seconds, level * TARGET))
    list(cluster.hold(200, last * TARGET))
    assert cluster.target == min(max(math.ceil(round(last, 6)), least), 8)


@pytest.mark.parametrize("name", ["florence2", "florence2.cluster", "florence2.cluster.scaling"])
def test_the_policy_needs_nothing_of_this_package(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Serve's controller may run where the package is not installed, or is another version."""
    pickled = autoscaling(0, 2, TARGET, upscale_delay_s=5, downscale_delay_s=60).policy.get_serialized_policy_def()
    context = Cluster(running=1)._context({ROWS: {"a": 3.0 * TARGET, "b": 10.0}}, 40, 0)
    monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    policy = cloudpickle.loads(pickled or b"")
    assert policy is not rows_policy
    assert policy(context)[0] == 4
