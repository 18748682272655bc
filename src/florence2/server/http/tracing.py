"""Traces of requests by OpenTelemetry: a span for each request, each image, each answer and each of their stages, sent by OTLP over HTTP.

In: requests from the middleware, and what the inference service reports. Out: spans, handed to a thread that sends them; what the collector
does not take is dropped and counted, and no request waits for it. Spans hold times, names and counts, never prompts, images or keys. Needs
the extra ``otel``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from starlette.types import Scope

from florence2.background import in_thread
from florence2.extras import requires
from florence2.results import Result
from florence2.server.http.request_notes import RequestNotes, current_notes
from florence2.server.inference.observer import CANCELLED, Answered, Failed, task_label
from florence2.server.settings import Settings
from florence2.timing import Timing
from florence2.version import __version__

TRACES_PATH = "/v1/traces"
CLOSE_S = 2.0
_PROPAGATED = frozenset({"traceparent", "tracestate"})


class Tracing:
    """Makes the spans of one application; an observer of the inference service.

    Args:
        settings: the server's; ``otlp_endpoint`` is set.
        instance: the name of this process among others.

    Raises:
        MissingExtra: the extra is not installed.
    """

    def __init__(self, settings: Settings, instance: str) -> None:
        assert settings.otlp_endpoint is not None
        with requires("otel", "the setting otlp_endpoint"):
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            from florence2.server.http.span_export import SpanExport
        own = {"service.name": "florence2", "service.version": __version__, "service.instance.id": instance}
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes before.
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        self._export = SpanExport(_traces_url(settings.otlp_endpoint))
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio)), resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(self._export)
        self._tracer = self._provider.get_tracer("florence2", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @property
    def num_dropped(self) -> int:
        """How many spans were lost since the start."""
        return self._export.num_dropped

    def begin(self, notes: RequestNotes, scope: Scope, started: float) -> None:
        """Begin the span of a request, below that of its caller if it names one.

        Args:
            notes: get the span, and the id of its trace.
            scope: the request's.
            started: when it came, by ``time.perf_counter``.
        """
        from opentelemetry.trace import SpanKind

        carrier = {name: value.decode("latin-1") for raw, value in scope["headers"] if (name := raw.decode("latin-1")) in _PROPAGATED}
        parent = self._propagator.extract(carrier)
        notes.span = _Span(self._tracer, "request", {}, started, parent=parent, kind=SpanKind.SERVER)
        notes.trace_id = notes.span.trace_id

    def note_answer(self, answered: Answered) -> None:
        """Add the spans of an image that was answered; see ``Observer``."""
        request = _request_span()
        if request is None:
            return
        began_at, queued_at = answered.began_at, answered.began_at + answered.image_s
        image = request.child("image", _of_image(answered), began_at)
        fetched_at = began_at + answered.fetch_s
        decoded_at = fetched_at + answered.decode_s
        for name, start, end in (
            ("fetch", began_at, fetched_at),
            ("decode image", fetched_at, decoded_at),
            ("preprocess", decoded_at, queued_at),
        ):
            image.child(name, {}, start).end(end)
        for result in answered.results:
            _add_answer(image, result, queued_at, began_at + answered.total_s)
        image.end(began_at + answered.total_s)

    def note_failure(self, failed: Failed) -> None:
        """Add the span of an image that was not answered; see ``Observer``."""
        request = _request_span()
        if request is not None:
            image = request.child("image", _of_image(failed), failed.began_at)
            image.end(failed.began_at + failed.total_s, code=None if failed.code == CANCELLED else failed.code)

    async def close(self) -> None:
        """Send what is left, for a limited time."""
        with suppress(TimeoutError):
            await asyncio.wait_for(in_thread("florence2-traces", self._provider.shutdown), CLOSE_S)


class _Span:
    """A span whose times are given by ``time.perf_counter``.

    Attributes:
        trace_id: the id of its trace if it is exported; None otherwise.
    """

    def __init__(
        self,
        tracer: Any,
        name: str,
        attributes: Mapping[str, Any],
        started: float,
        *,
        parent: Any,
        offset_ns: int | None = None,
        **options: Any,
    ) -> None:
        from opentelemetry.trace import set_span_in_context

        # One offset for a whole trace: the clocks drift apart.
        self._offset_ns = time.time_ns() - time.perf_counter_ns() if offset_ns is None else offset_ns
        self._tracer = tracer
        self._span = tracer.start_span(name, parent, attributes=attributes, start_time=self._ns(started), **options)
        self._context = set_span_in_context(self._span)
        shown = self._span.get_span_context()
        self.trace_id = f"{shown.trace_id:032x}" if shown.trace_flags.sampled else None

    def child(self, name: str, attributes: Mapping[str, Any], started: float) -> _Span:
        """A span below this one."""
        return _Span(self._tracer, name, attributes, started, parent=self._context, offset_ns=self._offset_ns)

    def rename(self, name: str, attributes: Mapping[str, Any]) -> None:
        """Give it the name and the attributes that were not known when it began; those that are None are left out."""
        self._span.update_name(name)
        self._span.set_attributes({key: value for key, value in attributes.items() if value is not None})

    def end(self, ended: float, code: str | None = None) -> None:
        """End it; with the code of an error, as one that failed."""
        if code is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute("error.type", code)
            self._span.set_status(Status(StatusCode.ERROR, code))
        self._span.end(self._ns(ended))

    def _ns(self, at: float) -> int:
        return int(at * 1e9) + self._offset_ns


def end_request(notes: RequestNotes, fields: Mapping[str, Any], route: str, method: str) -> None:
    """End the span of a request, if it has one.

    Args:
        notes: the request's.
        fields: what the log says of it.
        route: the path of its route.
        method: its method, one of the known ones.
    """
    if notes.span is None:
        return
    status, code = fields["status"], fields["code"]
    attributes = {"http.request.method": method, "http.route": route, "http.response.status_code": status or None}
    own = {"request_id": notes.request_id, "model": fields["model"], "key_name": fields["key"], "tokens": notes.num_tokens, "code": code}
    notes.span.rename(f"{method} {route}", {**attributes, **{f"florence2.{name}": value for name, value in own.items()}})
    notes.span.end(time.perf_counter(), code if status >= 500 or not status else None)


def _request_span() -> _Span | None:
    """The span of the request in whose context this is called, if it is exported."""
    notes = current_notes()
    return None if notes is None or notes.trace_id is None else notes.span


def _of_image(noted: Answered | Failed) -> dict[str, Any]:
    shared = {"florence2.model": noted.model, "florence2.task": noted.task}
    if isinstance(noted, Failed):
        return {**shared, "florence2.code": noted.code}
    return {**shared, "florence2.source": noted.source}


def _add_answer(image: _Span, result: Result, queued_at: float, answered_at: float) -> None:
    """Add the span of one answer and those of its stages.

    The engine tells how long they lasted. They follow each other from the queue on; what is read of the answer is read at its end.
    """
    timing = result.timing or Timing(total_s=answered_at - queued_at)
    ended_at = min(queued_at + timing.total_s, answered_at)
    attributes = {"task": task_label(result.task), "tokens": len(result.token_ids), "finish_reason": result.finish_reason}
    answer = image.child("answer", {f"florence2.{name}": value for name, value in attributes.items()}, queued_at)
    if result.timing is not None:
        parsed_from, at = max(ended_at - timing.parse_s, queued_at), queued_at
        stages = {"queue": timing.queue_s, "vision": timing.vision_s, "prefill": timing.prefill_s, "decode": timing.decode_s}
        for name, seconds in stages.items():
            stage = answer.child(name, {}, min(at, parsed_from))
            at += seconds
            stage.end(min(at, parsed_from))
        answer.child("parse", {}, parsed_from).end(ended_at)
    answer.end(ended_at)


def _traces_url(endpoint: str) -> str:
    """Where spans go: the address itself if it has a path, else the path by which collectors take them."""
    return endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + TRACES_PATH
