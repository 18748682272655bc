"""What Prometheus reads: counters and histograms of requests, gauges of what is under way and loaded.

One registry for each application. Names of our own begin with ``florence2_``; those of Roboflow's server are kept beside
them. Labels have few values: routes, canonical model ids, task tags, error codes. Knows nothing of HTTP messages.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from florence2.results import Result
from florence2.tasks.table import TASKS

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WINDOW_S = 10.0
FREE_PROMPT = "free"


class Metrics:
    """The metrics of one application.

    Args:
        under_way: how many places are taken now.
        loaded: the loaded models' canonical ids, each with the seconds that loading took.
    """

    def __init__(self, under_way: Callable[[], int], loaded: Callable[[], Mapping[str, float]]) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "http_requests", "Requests by route, method and status.", ["handler", "method", "status"], registry=registry
        )
        self.durations = Histogram(
            "http_request_duration_seconds", "Time of requests.", ["handler", "method"], buckets=SECONDS, registry=registry
        )
        self.answers = Counter(
            "florence2_answers", "Images answered or failed, by model, task and code.", ["model", "task", "code"], registry=registry
        )
        self.finishes = Counter("florence2_finish_reasons", "Why answers ended.", ["model", "task", "finish_reason"], registry=registry)
        self.tokens = Counter("florence2_generated_tokens", "Tokens generated.", ["model"], registry=registry)
        self.pixels_s = Histogram(
            "florence2_image_seconds", "Fetching and reading one image.", ["source"], buckets=SECONDS, registry=registry
        )
        self.engine_s = Histogram(
            "florence2_engine_seconds", "From the engine's queue to the answer.", ["model", "task"], buckets=SECONDS, registry=registry
        )
        Gauge("florence2_requests_under_way", "Images times prompts times beams waiting or running.", registry=registry).set_function(
            under_way
        )
        Gauge("florence2_models_loaded", "Loaded models.", registry=registry).set_function(lambda: len(loaded()))
        self.recent = RecentInferences(loaded)
        registry.register(self.recent)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def note_answer(self, model: str, task: str, results: Sequence[Result], source: str, image_s: float, engine_s: float) -> None:
        """Take note of an image that was answered.

        Args:
            model: the canonical id.
            task: see ``task_label``; "several" for several prompts.
            results: one for each prompt.
            source: how the image was sent.
            image_s: the time until the engine was asked.
            engine_s: the time from then on.
        """
        self.answers.labels(model, task, "ok").inc()
        self.pixels_s.labels(source).observe(image_s)
        self.engine_s.labels(model, task).observe(engine_s)
        self.recent.note(model, image_s + engine_s)
        for result in results:
            self.finishes.labels(model, task_label(result.task), result.finish_reason).inc()
            self.tokens.labels(model).inc(len(result.token_ids))

    def render(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)


class RecentInferences(Collector):
    """Gauges of the loaded models: inferences, errors and mean time of the last ten seconds, by the names of Roboflow's server."""

    def __init__(self, loaded: Callable[[], Mapping[str, float]]) -> None:
        self._loaded = loaded
        self._seen: dict[str, deque[tuple[float, float | None]]] = defaultdict(deque)

    def note(self, model_id: str, seconds: float | None) -> None:
        """Take note of an answer that took so long, or of an error (None)."""
        events = self._seen[model_id]
        events.append((time.monotonic(), seconds))
        self._forget(events)

    def collect(self) -> Iterable[Metric]:
        """The gauges as they are now."""
        load_s = GaugeMetricFamily("florence2_model_load_seconds", "How long loading took.", labels=["model"])
        totals = [0, 0, 0.0]
        names = {"total"}
        for model_id, seconds in self._loaded().items():
            load_s.add_metric([model_id], seconds)
            events = self._seen[model_id]
            self._forget(events)
            times = [seconds for _, seconds in events if seconds is not None]
            values = (len(times), len(events) - len(times), sum(times) / len(times) if times else 0.0)
            totals = [total + value for total, value in zip(totals, values, strict=True)]
            yield from _gauges(_unused(re.sub(r"[^a-zA-Z0-9_]", "_", model_id), names), *values)
        yield from _gauges("total", *totals)
        yield load_s

    @staticmethod
    def _forget(events: deque[tuple[float, float | None]]) -> None:
        while events and events[0][0] < time.monotonic() - WINDOW_S:
            events.popleft()


def task_label(prompt: str) -> str:
    """The task's tag, or one word for all free prompts."""
    return next((tag for tag in TASKS if tag in prompt), FREE_PROMPT)


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
