"""What Prometheus reads: counters and histograms of requests, gauges of what is under way and loaded.

One registry for each application, to which an API may add metrics by names of its own. Labels have few values: routes, canonical model
ids, task tags, error codes. Knows nothing of HTTP messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from florence2.server.http.api import Loaded
from florence2.server.inference.observer import Answered, Failed, task_label

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The metrics of one application; an observer of the inference service.

    Args:
        num_slots: how many slots are taken now.
        loaded: the loaded models' canonical ids, each with the seconds that loading took.
    """

    def __init__(self, num_slots: Callable[[], int], loaded: Loaded) -> None:
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
        self.first_s = Histogram(
            "florence2_first_event_seconds",
            "From the engine's queue to the first text or object of a streamed answer.",
            ["model", "task"],
            buckets=SECONDS,
            registry=registry,
        )
        Gauge("florence2_requests_under_way", "Images times prompts times beams waiting or running.", registry=registry).set_function(
            num_slots
        )
        Gauge("florence2_models_loaded", "Loaded models.", registry=registry).set_function(lambda: len(loaded()))
        registry.register(_LoadTimes(loaded))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def note_answer(self, answered: Answered) -> None:
        """Count an image that was answered; see ``Observer``."""
        model, task = answered.model, answered.task
        self.answers.labels(model, task, "ok").inc()
        self.pixels_s.labels(answered.source).observe(answered.image_s)
        self.engine_s.labels(model, task).observe(answered.engine_s)
        if answered.first_s is not None:
            self.first_s.labels(model, task).observe(answered.first_s)
        for result in answered.results:
            self.finishes.labels(model, task_label(result.task), result.finish_reason).inc()
            self.tokens.labels(model).inc(len(result.token_ids))

    def note_failure(self, failed: Failed) -> None:
        """Count an image that was not answered; see ``Observer``."""
        self.answers.labels(failed.model, failed.task, failed.code).inc()

    def render(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)


class _LoadTimes(Collector):
    """How long loading each model took."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def collect(self) -> Iterable[Metric]:
        """The gauge as it is now."""
        gauge = GaugeMetricFamily("florence2_model_load_seconds", "How long loading took.", labels=["model"])
        for model_id, seconds in self._loaded().items():
            gauge.add_metric([model_id], seconds)
        yield gauge
