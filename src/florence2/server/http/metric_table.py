"""Every metric of this server's own, in one table: what counts them, what documents them and what checks the dashboard read it.

Names are those that Prometheus stores. Labels have few values: routes, ids of models that were loaded, task tags, error codes, names that
operators give to keys; never what a client writes. Knows nothing of what the values are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SHORT_SECONDS = (0.001, 0.0025, *SECONDS)
"""For stages that take less than the 5 ms of the fastest request."""

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class MetricRow:
    """One metric.

    Attributes:
        name: its name; that of a counter ends in ``_total``.
        kind: what Prometheus calls it.
        text: what it means, for ``# HELP`` and the documentation.
        labels: the names of its labels.
        buckets: the upper bounds of a histogram.
    """

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = SECONDS

    def counted(self, registry: CollectorRegistry) -> Any:
        """The counter or histogram itself, in the registry."""
        if self.kind == "counter":
            return Counter(self.name, self.text, self.labels, registry=registry)
        return Histogram(self.name, self.text, self.labels, buckets=self.buckets, registry=registry)

    def read(self, values: dict[tuple[str, ...], float]) -> CounterMetricFamily | GaugeMetricFamily:
        """The counter or gauge with values that were read just now, by their labels."""
        family = (CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily)(self.name, self.text, labels=self.labels)
        for labels, value in values.items():
            family.add_metric(labels, value)
        return family


_MODEL, _TASK = ("model",), ("model", "task")

COUNTED = (
    MetricRow("http_requests_total", "counter", "Requests by route, method and status.", ("handler", "method", "status")),
    MetricRow("http_request_duration_seconds", "histogram", "From a request's head to the end of its response.", ("handler", "method")),
    MetricRow("florence2_refusals_total", "counter", "Requests that ended in an error, by its code.", ("code",)),
    MetricRow("florence2_answers_total", "counter", "Images answered (code ok) or failed, by the error's code.", (*_TASK, "code")),
    MetricRow("florence2_finish_reasons_total", "counter", "Answers, by why they ended.", (*_TASK, "finish_reason")),
    MetricRow("florence2_generated_tokens_total", "counter", "Tokens generated.", _MODEL),
    MetricRow("florence2_compute_seconds_total", "counter", "Engine time that answers cost.", _MODEL),
    MetricRow("florence2_key_images_total", "counter", "Images answered, by the name of the key.", ("key",)),
    MetricRow("florence2_key_compute_seconds_total", "counter", "Engine time that answers cost, by the name of the key.", ("key",)),
    MetricRow("florence2_request_seconds", "histogram", "One image from the beginning of its work to its answer.", _MODEL),
    MetricRow("florence2_fetch_seconds", "histogram", "Getting an image file, such as the content of a URL.", ("source",), SHORT_SECONDS),
    MetricRow(
        *("florence2_preprocess_seconds", "histogram", "Decoding and resizing an image, and waiting for a thread that does it."),
        *(("source",), SHORT_SECONDS),
    ),
    MetricRow("florence2_image_seconds", "histogram", "Both together: until an image's prompts are in the engine's queue.", ("source",)),
    MetricRow("florence2_queue_seconds", "histogram", "Waiting in the engine's queue.", _MODEL, SHORT_SECONDS),
    MetricRow("florence2_vision_seconds", "histogram", "An image's share of a pass of the vision tower.", _MODEL, SHORT_SECONDS),
    MetricRow("florence2_prefill_seconds", "histogram", "Encoding a prompt and preparing the decoder for it.", _MODEL, SHORT_SECONDS),
    MetricRow("florence2_decode_seconds", "histogram", "Generating an answer's tokens.", _MODEL),
    MetricRow("florence2_parse_seconds", "histogram", "Reading an answer out of its tokens.", _MODEL, SHORT_SECONDS),
    MetricRow("florence2_first_token_seconds", "histogram", "From the engine's queue to an answer's first token.", _MODEL),
    MetricRow("florence2_engine_seconds", "histogram", "One image from the engine's queue to its answer.", _TASK),
    MetricRow("florence2_first_event_seconds", "histogram", "The same to the first text or object of a streamed answer.", _TASK),
)
"""Counted when it happens."""

READ = (
    MetricRow("florence2_ready", "gauge", "1 while /readiness says so."),
    MetricRow("florence2_requests_under_way", "gauge", "Images times prompts times beams that were let in and are not answered."),
    MetricRow("florence2_body_bytes", "gauge", "Bytes of request bodies, and of image files in them, that are held."),
    MetricRow("florence2_models_loaded", "gauge", "Loaded models."),
    MetricRow("florence2_model_load_seconds", "gauge", "How long loading took.", _MODEL),
    MetricRow("florence2_model_memory_bytes", "gauge", "Memory of weights, decoder's cache and kept images.", _MODEL),
    MetricRow("florence2_requests_running", "gauge", "Prompts that take part in the engine's steps.", _MODEL),
    MetricRow("florence2_requests_waiting", "gauge", "Prompts in the engine's queue.", _MODEL),
    MetricRow("florence2_waiting_bytes", "gauge", "Memory of the images of waiting prompts.", _MODEL),
    MetricRow("florence2_rows", "gauge", "Rows (beams) of the engine's steps now.", _MODEL),
    MetricRow("florence2_rows_max", "gauge", "The most rows of a step.", _MODEL),
    MetricRow("florence2_image_cache_bytes", "gauge", "Memory of the encoded images that are kept.", _MODEL),
    MetricRow("florence2_image_cache_hits_total", "counter", "Images that were encoded already.", _MODEL),
    MetricRow("florence2_image_cache_misses_total", "counter", "Images that had to be encoded.", _MODEL),
    MetricRow("florence2_engine_steps_total", "counter", "Decoder steps.", _MODEL),
    MetricRow("florence2_engine_busy_seconds_total", "counter", "Time in which the engine worked.", _MODEL),
    MetricRow("florence2_engine_pass_age_seconds", "gauge", "How long the pass under way has lasted; 0 when idle.", _MODEL),
    MetricRow("florence2_engine_up", "gauge", "1 while the engine answers: not while its process is started anew."),
    MetricRow("florence2_engine_restarts_total", "counter", "How often the engine's process was started anew."),
    MetricRow("florence2_process_memory_bytes", "gauge", "Resident memory of the server's process and the engine's.", ("process",)),
    MetricRow("florence2_log_lines_dropped_total", "counter", "Lines of the log lost because nobody read them."),
    MetricRow("florence2_spans_dropped_total", "counter", "Spans of traces lost because the collector did not take them."),
    MetricRow("florence2_usage_unwritten_total", "counter", "Records of usage kept in memory alone, as the disk is full."),
)
"""Read when Prometheus asks."""

TABLE = (*COUNTED, *READ)


def as_markdown() -> str:
    """The table for the documentation."""
    lines = ["| Metric | Kind | Labels | Meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{row.name}` | {row.kind} | {', '.join(f'`{label}`' for label in row.labels)} | {row.text} |" for row in TABLE]
    return "\n".join(lines)
