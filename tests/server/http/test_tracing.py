"""Spans of requests as a collector gets them: an HTTP server here that reads OTLP."""

from __future__ import annotations

import asyncio
import gzip
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from fixtures.fake_engine import TIMING, FakeEngine
from florence2.errors import InvalidOption, MissingExtra
from florence2.server.app import create_app
from florence2.server.http import span_export
from florence2.server.http.logs import FIELDS
from florence2.server.settings import Settings, read_settings
from tests.server.fakes import body, client_of, image_field

pytestmark = pytest.mark.anyio

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STAGES = ["queue", "vision", "prefill", "decode", "parse"]
SECRET = "a-key-of-someone"


class Collector(HTTPServer):
    """Keeps the spans that it is sent, by OTLP over HTTP."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taker)
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def children(self, span: Any) -> list[Any]:
        return sorted((one for one in self.spans if one.parent_span_id == span.span_id), key=lambda one: one.start_time_unix_nano)


class Taker(BaseHTTPRequestHandler):
    server: Collector  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        message = ExportTraceServiceRequest.FromString(content)
        self.server.paths.append(self.path)
        for resource in message.resource_spans:
            self.server.resources.append(attributes(resource.resource))
            self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, args=(0.01,), daemon=True).start()
        yield collector
        collector.shutdown()


def attributes(holder: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in holder.attributes}


def seconds_of(span: Any) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


async def test_a_request_is_a_tree_of_spans() -> None:
    with collecting() as collector:
        began_ns = time.time_ns()
        async with client_of(FakeEngine(), otlp_endpoint=collector.url, api_keys=[SECRET]) as client:
            asked = body(api_key=SECRET, prompt="<CAPTION_TO_PHRASE_GROUNDING>", text="a secret phrase", image=[image_field()] * 2)
            sent = await client.post("/infer/lmm", json=asked, headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine"})
            assert sent.status_code == 200
            await client.get("/healthz")
        ended_ns = time.time_ns()
        (request,) = collector.named("POST /infer/lmm")
        assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
        assert (request.parent_span_id.hex(), request.kind) == (PARENT, 2)
        assert attributes(request) == {
            "http.request.method": "POST",
            "http.route": "/infer/lmm",
            "http.response.status_code": 200,
            "florence2.request_id": "mine",
            "florence2.model": "florence-2-base",
            "florence2.key_name": "key-1",
            "florence2.tokens": 6,
        }
        images = collector.children(request)
        assert [span.name for span in images] == ["image", "image"]
        for image in images:
            assert attributes(image) == {
                "florence2.model": "florence-2-base",
                "florence2.task": "<CAPTION_TO_PHRASE_GROUNDING>",
                "florence2.source": "base64",
            }
            assert [span.name for span in collector.children(image)] == ["fetch", "decode image", "preprocess", "answer"]
            (answer,) = [span for span in collector.children(image) if span.name == "answer"]
            assert attributes(answer) == {
                "florence2.task": "<CAPTION_TO_PHRASE_GROUNDING>",
                "florence2.tokens": 3,
                "florence2.finish_reason": "stop",
            }
            assert [span.name for span in collector.children(answer)] == STAGES
        assert began_ns <= request.start_time_unix_nano <= request.end_time_unix_nano <= ended_ns
        for span in collector.spans:
            assert span.start_time_unix_nano <= span.end_time_unix_nano
            for child in collector.children(span):
                assert span.start_time_unix_nano <= child.start_time_unix_nano
                assert child.end_time_unix_nano <= span.end_time_unix_nano
        assert set(collector.paths) == {"/v1/traces"}
        assert {resource["service.name"] for resource in collector.resources} == {"florence2"}
        everything = str(collector.spans)
        assert SECRET not in everything
        assert "secret phrase" not in everything


async def test_stages_last_as_long_as_the_engine_says() -> None:
    engine = FakeEngine()
    engine.hold = True
    with collecting() as collector:
        async with client_of(engine, otlp_endpoint=collector.url) as client:
            answering = asyncio.ensure_future(client.post("/infer/lmm", json=body()))
            while not engine.futures:
                await asyncio.sleep(0.001)
            await asyncio.sleep(3 * TIMING.total_s)
            engine.release()
            await answering
        (answer,) = collector.named("answer")
        lengths = {span.name: seconds_of(span) for span in collector.children(answer)}
    wanted = {"queue": TIMING.queue_s, "vision": TIMING.vision_s, "prefill": TIMING.prefill_s, "decode": TIMING.decode_s}
    assert lengths == pytest.approx({**wanted, "parse": TIMING.parse_s}, abs=1e-6)
    assert seconds_of(answer) == pytest.approx(TIMING.total_s, abs=1e-6)


async def test_errors_are_told_by_their_code() -> None:
    with collecting() as collector:
        engine = FakeEngine()
        async with client_of(engine, otlp_endpoint=collector.url) as client:
            await client.post("/infer/lmm", json=body(image=image_field(b"no image")))
            engine.failure = RuntimeError("broken with a secret phrase")
            await client.post("/infer/lmm", json=body())
        refused, failed = sorted(collector.named("POST /infer/lmm"), key=lambda span: span.start_time_unix_nano)
        assert (attributes(refused)["florence2.code"], refused.status.code) == ("invalid_image", 0)
        assert (attributes(failed)["florence2.code"], failed.status.code) == ("internal", 2)
        assert [attributes(span)["florence2.code"] for span in collector.named("image")] == ["invalid_image", "internal"]
        assert "secret phrase" not in str(collector.spans)


async def test_the_share_of_traces_and_who_decides() -> None:
    with collecting() as collector:
        async with client_of(FakeEngine(), otlp_endpoint=collector.url, trace_ratio=0.0) as client:
            await client.post("/infer/lmm", json=body())
            await client.post("/infer/lmm", json=body(), headers={"traceparent": "nonsense"})
            await client.post("/infer/lmm", json=body(), headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        assert [span.trace_id.hex() for span in collector.named("POST /infer/lmm")] == [TRACE]


@pytest.mark.parametrize("status", [200, 400])
async def test_spans_that_nobody_takes_are_dropped_and_counted(status: int, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(span_export, "DELAY_MS", 10)
    with collecting() as collector:
        collector.status, url = status, collector.url
        if status == 200:
            collector.server_close()  # nothing listens there
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
        with caplog.at_level(logging.WARNING):
            async with client_of(FakeEngine(), otlp_endpoint=url) as client:
                started = time.perf_counter()
                assert (await client.post("/infer/lmm", json=body())).status_code == 200
                assert time.perf_counter() - started < 1
                tracing, deadline = client.app.state.server.tracing, time.monotonic() + 5  # type: ignore[attr-defined]
                while tracing.num_dropped < 11 and time.monotonic() < deadline:
                    time.sleep(0.01)
                assert "florence2_spans_dropped_total 11.0" in (await client.get("/metrics")).text
    (line,) = [record.getMessage() for record in caplog.records if "collector" in record.getMessage()]
    assert "are lost so far" in line


async def test_a_full_queue_drops_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_export, "MAX_WAITING", 4)
    monkeypatch.setattr(span_export, "MAX_BATCH", 4)
    with collecting() as collector:
        async with client_of(FakeEngine(), otlp_endpoint=collector.url) as client:
            for _ in range(3):
                await client.post("/infer/lmm", json=body())
            num_dropped = client.app.state.server.tracing.num_dropped  # type: ignore[attr-defined]
        assert num_dropped > 0
        assert num_dropped + len(collector.spans) == 33


async def test_lines_of_the_log_have_the_id_of_the_trace(caplog: Any) -> None:
    with collecting() as collector, caplog.at_level(logging.INFO, "florence2.access"):
        async with client_of(FakeEngine(), otlp_endpoint=collector.url) as client:
            await client.post("/infer/lmm", json=body(), headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    (record,) = [record for record in caplog.records if record.name == "florence2.access"]
    assert getattr(record, FIELDS)["trace_id"] == TRACE


async def test_exemplars_name_the_trace() -> None:
    with collecting() as collector:
        async with client_of(FakeEngine(), otlp_endpoint=collector.url) as client:
            await client.post("/infer/lmm", json=body(), headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
            accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
            lines = (await client.get("/metrics", headers={"accept": accept})).text.splitlines()
    (line,) = [line for line in lines if line.startswith("florence2_request_seconds_bucket") and "# {" in line]
    assert f'# {{trace_id="{TRACE}"}}' in line


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.resources", None)
    create_app(Settings(), engine=FakeEngine())
    with pytest.raises(MissingExtra, match=r"otlp_endpoint needs the extra 'otel'"):
        create_app(Settings(otlp_endpoint="http://127.0.0.1:4318"), engine=FakeEngine())


def test_where_the_collector_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/otlp/")
    assert read_settings({}).otlp_endpoint == "http://collector:4318/otlp/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other:4318/spans")
    assert read_settings({}).otlp_endpoint == "http://other:4318/spans"
    assert read_settings({"otlp_endpoint": "http://mine:4318"}).otlp_endpoint == "http://mine:4318"
    for wrong in ("collector:4318", "http://me:secret@collector:4318", "ftp://collector"):
        with pytest.raises(InvalidOption) as raised:
            read_settings({"otlp_endpoint": wrong})
        assert "secret" not in str(raised.value)
