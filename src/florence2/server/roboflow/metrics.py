"""Metrics of models by the names of Roboflow's server: inferences, errors and mean time of the last ten seconds.

In: what the inference service reports. Out: gauges. Knows nothing of requests.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict, deque
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from florence2.server.http.api import Loaded
from florence2.server.inference.observer import CANCELLED, Answered, Failed

WINDOW_S = 10.0


def observe(registry: CollectorRegistry, loaded: Loaded) -> RecentInferences:
    """The gauges, in the registry."""
    recent = RecentInferences(loaded)
    registry.register(recent)
    return recent


class RecentInferences(Collector):
    """Gauges of the loaded models: inferences, errors and mean time of the last ten seconds, by the names of Roboflow's server."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._seen: dict[str, deque[tuple[float, float | None]]] = defaultdict(deque)

    def note_answer(self, answered: Answered) -> None:
        """Note an image that was answered; see ``Observer``."""
        self._note(answered.model, answered.total_s)

    def note_failure(self, failed: Failed) -> None:
        """Note an image that was not answered; those of callers who left do not count."""
        if failed.code != CANCELLED:
            self._note(failed.model, None)

    def _note(self, model_id: str, seconds: float | None) -> None:
        """Note an answer that took so long, or an error (None)."""
        events = self._seen[model_id]
        events.append((time.monotonic(), seconds))
        self._forget(events)

    def collect(self) -> Iterable[Metric]:
        """The gauges as they are now."""
        totals = [0, 0, 0.0]
        names = {"total"}
        for model_id in self._loaded():
            events = self._seen[model_id]
            self._forget(events)
            times = [seconds for _, seconds in events if seconds is not None]
            values = (len(times), len(events) - len(times), sum(times) / len(times) if times else 0.0)
            totals = [total + value for total, value in zip(totals, values, strict=True)]
            yield from _gauges(_unused(re.sub(r"[^a-zA-Z0-9_]", "_", model_id), names), *values)
        yield from _gauges("total", *totals)

    @staticmethod
    def _forget(events: deque[tuple[float, float | None]]) -> None:
        while events and events[0][0] < time.monotonic() - WINDOW_S:
            events.popleft()


def _unused(name: str, used: set[str]) -> str:
    """A name that no other gauge has: ``a/x`` and ``a-x`` are two models and would be one name."""
    found, number = name, 1
    while found in used:
        number += 1
        found = f"{name}_{number}"
    used.add(found)
    return found


def _gauges(name: str, inferences: float, errors: float, seconds: float) -> Iterable[Metric]:
    within = f"in the last {WINDOW_S:g} s"
    yield GaugeMetricFamily(f"num_inferences_{name}", f"Inferences {within}", value=inferences)
    yield GaugeMetricFamily(f"avg_inference_time_{name}", f"Mean seconds of an inference {within}", value=seconds)
    yield GaugeMetricFamily(f"num_errors_{name}", f"Errors {within}", value=errors)
