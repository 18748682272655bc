"""Sending of spans to a collector, in a thread of its own: nothing waits for it, and what it does not take is dropped and counted.

In: ended spans. Out: OTLP over HTTP. Needs the extra ``otel``; imported by ``tracing`` alone, and only where that is wanted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

logger = logging.getLogger(__name__)

MAX_WAITING = 8192
MAX_BATCH = 512
DELAY_MS = 2000
REPORT_S = 60.0


class SpanExport(SpanProcessor):
    """Takes ended spans, as many as there is room for, and sends them in batches.

    Args:
        url: where they go.

    Attributes:
        num_dropped: how many were lost since the start.
    """

    def __init__(self, url: str) -> None:
        # Its own lines say the same for every batch, with tracebacks.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        self.num_dropped = 0
        self._num_waiting = 0
        self._counting = threading.Lock()
        self._sender = _Sender(url, self._note_sent)
        self._batches = BatchSpanProcessor(
            self._sender, max_queue_size=2 * MAX_WAITING, schedule_delay_millis=DELAY_MS, max_export_batch_size=MAX_BATCH
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span, or count it as lost where too many wait."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._counting:
            has_room = self._num_waiting < MAX_WAITING
            self._num_waiting += has_room
            self.num_dropped += not has_room
        if has_room:
            self._batches.on_end(span)

    def shutdown(self) -> None:
        """Send what is left."""
        self._batches.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits; whether that is done."""
        return self._batches.force_flush(timeout_millis)

    def _note_sent(self, num_spans: int, is_taken: bool) -> int:
        """Count a batch; how many spans are lost so far."""
        with self._counting:
            self._num_waiting -= num_spans
            self.num_dropped += 0 if is_taken else num_spans
            return self.num_dropped


class _Sender(SpanExporter):
    """The exporter of OpenTelemetry, counted, with a line in the log when it fails, once a minute at most."""

    def __init__(self, url: str, note_sent: Any) -> None:
        self._exporter = OTLPSpanExporter(endpoint=url)
        self._host = urlsplit(url).netloc.rpartition("@")[2]
        self._note_sent = note_sent
        self._reported_at: float | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        try:
            result = self._exporter.export(spans)
        except Exception:  # the connection broke in a way that the exporter does not know
            logger.debug("sending spans failed", exc_info=True)
            result = SpanExportResult.FAILURE
        num_dropped = self._note_sent(len(spans), result is SpanExportResult.SUCCESS)
        if result is not SpanExportResult.SUCCESS:
            self._report(num_dropped)
        return result

    def shutdown(self) -> None:
        """End sending, a batch that is tried again included."""
        self._exporter.shutdown()

    def _report(self, num_dropped: int) -> None:
        now = time.monotonic()
        if self._reported_at is None or now - self._reported_at >= REPORT_S:
            self._reported_at = now
            logger.warning("the collector of traces at %s does not take them; %d spans are lost so far", self._host, num_dropped)
