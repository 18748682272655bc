"""What Prometheus reads: counters and histograms of requests and answers, and what is read elsewhere when it asks.

One registry for each application, to which an API may add metrics by names of its own. In: what the middleware and the inference service
report. Out: the text that Prometheus reads. Knows nothing of HTTP messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from florence2.server.http.metric_table import COUNTED
from florence2.server.http.request_notes import trace_id
from florence2.server.inference.observer import Answered, Failed, task_label
from florence2.timing import Timing

MAX_NAMES = 100
OTHERS = "others"


class Names:
    """The values of one label, at most ``MAX_NAMES``; all that come later are one."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def label(self, name: str) -> str:
        """The name itself, or ``OTHERS``."""
        if name not in self._known and len(self._known) >= MAX_NAMES:
            return OTHERS
        self._known.add(name)
        return name


class Metrics:
    """The metrics of one application; an observer of the inference service.

    Attributes:
        registry: where all of them are.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counted = {row.name: row.counted(self.registry) for row in COUNTED}
        self._known: dict[tuple[str, tuple[str, ...]], Any] = {}
        # Where requests may load any model of the hub, and where keys are made by the thousand, each would be a series for ever.
        self._models, self._keys = Names(), Names()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def note_request(self, handler: str, method: str, status: int, seconds: float, code: str | None) -> None:
        """Count a request.

        Args:
            handler: the path of its route.
            method: its method.
            status: the status of its response; 0: there was none.
            seconds: how long it took.
            code: the code of the error that it ended in; None: it did not.
        """
        self._add("http_requests_total", handler, method, str(status))
        self._observe("http_request_duration_seconds", seconds, handler, method)
        if code is not None:
            self.note_refusal(code)

    def note_refusal(self, code: str) -> None:
        """Count an error by its code."""
        self._add("florence2_refusals_total", code)

    def note_answer(self, answered: Answered) -> None:
        """Count an image that was answered; see ``Observer``."""
        model, task = self._models.label(answered.model), answered.task
        self._add("florence2_answers_total", model, task, "ok")
        self._observe("florence2_fetch_seconds", answered.fetch_s, answered.source)
        self._observe("florence2_preprocess_seconds", answered.preprocess_s, answered.source)
        self._observe("florence2_image_seconds", answered.image_s, answered.source)
        self._observe("florence2_request_seconds", answered.total_s, model)
        self._observe("florence2_engine_seconds", answered.engine_s, model, task)
        if answered.first_s is not None:
            self._observe("florence2_first_event_seconds", answered.first_s, model, task)
        key = self._keys.label(answered.key_name) if answered.key_name else None
        if key is not None:
            self._add("florence2_key_images_total", key)
        for result in answered.results:
            task = task_label(result.task)
            self._add("florence2_finish_reasons_total", model, task, result.finish_reason)
            self._add("florence2_generated_tokens_total", model, amount=len(result.token_ids))
            if result.timing is not None:
                self._note_timing(model, key, result.timing)

    def note_failure(self, failed: Failed) -> None:
        """Count an image that was not answered; see ``Observer``."""
        self._add("florence2_answers_total", self._models.label(failed.model), failed.task, failed.code)

    def collect(self) -> Iterator[Metric]:
        """All of them as the encoders take them, without the times at which series began: they would be a third of the text."""
        for metric in self.registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric

    def _note_timing(self, model: str, key: str | None, timing: Timing) -> None:
        """Count where the time of one answer went. The tower's time counts for pictures that it has seen."""
        self._observe("florence2_queue_seconds", timing.queue_s, model)
        if timing.vision_s:
            self._observe("florence2_vision_seconds", timing.vision_s, model)
        self._observe("florence2_prefill_seconds", timing.prefill_s, model)
        self._observe("florence2_decode_seconds", timing.decode_s, model)
        self._observe("florence2_parse_seconds", timing.parse_s, model)
        self._observe("florence2_first_token_seconds", timing.first_token_s, model)
        self._add("florence2_compute_seconds_total", model, amount=timing.compute_s)
        if key is not None:
            self._add("florence2_key_compute_seconds_total", key, amount=timing.compute_s)

    def _add(self, name: str, *labels: str, amount: float = 1) -> None:
        self._series(name, labels).inc(amount)

    def _series(self, name: str, labels: tuple[str, ...]) -> Any:
        """One series, kept: finding it by its labels takes the library as long as counting. None is ever removed."""
        series = self._known.get((name, labels))
        if series is None:
            series = self._known[name, labels] = self._counted[name].labels(*labels)
        return series

    def _observe(self, name: str, seconds: float, *labels: str) -> None:
        """Note a time, with the id of the trace that shows it."""
        shown = trace_id()
        self._series(name, labels).observe(seconds, None if shown is None else {"trace_id": shown})


@dataclass
class _Collected:
    """Metrics as the encoders take them."""

    families: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self.families


def rendered(families: Iterable[Metric], accept: str = "") -> tuple[bytes, str]:
    """Metrics as text, and its content type.

    Args:
        families: the metrics, each name once.
        accept: the header of that name: OpenMetrics where it asks for it, else Prometheus' own text.
    """
    encode, media_type = choose_encoder(accept)
    return encode(cast(Any, _Collected(families))), media_type
