"""What Prometheus and the log get to see."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from fixtures.fake_engine import TIMING, FakeEngine
from florence2.server.http.logs import FIELDS, MAX_MESSAGE_COLUMNS, JsonFormatter, TextFormatter, shown_path
from florence2.server.http.metric_table import TABLE
from florence2.server.http.metrics import MAX_NAMES, Metrics, rendered
from florence2.server.http.request_notes import noting
from florence2.server.inference.observer import Answered, task_label
from tests.server.fakes import body, client_of, image_field

pytestmark = pytest.mark.anyio


async def test_metrics_of_requests() -> None:
    async with client_of(FakeEngine()) as client:
        await client.post("/infer/lmm", json=body(prompt="<OD>"))
        await client.post("/infer/lmm", json=body(prompt="anything at all", stream=True))
        await client.post("/infer/lmm", json=body(prompt="<OD>", image=[image_field()] * 2))
        await client.post("/infer/lmm", json=body(image={"type": "base64", "value": "!"}))
        await client.post("/infer/lmm/nope/1", json=body())
        await client.get("/some/where/1")
        text = (await client.get("/metrics")).text
    assert 'florence2_first_event_seconds_count{model="florence-2-base",task="<OD>"}' not in text  # not streamed
    for line in (
        'florence2_answers_total{code="ok",model="florence-2-base",task="<OD>"} 3.0',
        'florence2_answers_total{code="ok",model="florence-2-base",task="free"} 1.0',
        'florence2_answers_total{code="invalid_image",model="florence-2-base",task="<CAPTION>"} 1.0',
        'florence2_finish_reasons_total{finish_reason="stop",model="florence-2-base",task="<OD>"} 3.0',
        'florence2_generated_tokens_total{model="florence-2-base"} 12.0',
        'florence2_engine_seconds_count{model="florence-2-base",task="<OD>"} 3.0',
        'florence2_first_event_seconds_count{model="florence-2-base",task="free"} 1.0',
        'florence2_image_seconds_count{source="base64"} 4.0',
        'http_requests_total{handler="/infer/lmm",method="POST",status="200"} 3.0',
        'http_requests_total{handler="/infer/lmm",method="POST",status="400"} 1.0',
        'http_requests_total{handler="/infer/lmm/{model_id:path}",method="POST",status="404"} 1.0',
        'http_requests_total{handler="none",method="GET",status="404"} 1.0',
        "florence2_requests_under_way 0.0",
        "florence2_models_loaded 2.0",
        "num_inferences_florence_2_base 4.0",
        "num_errors_florence_2_base 1.0",
        "num_inferences_total 4.0",
        "python_gc_objects_collected_total",
        "process_cpu_seconds_total",
    ):
        assert line in text, line
    assert "avg_inference_time_florence_2_base" in text
    assert "nope" not in text
    assert "some/where" not in text


async def test_all_metrics_are_there_and_can_be_parsed() -> None:
    async with client_of(FakeEngine(), api_keys=["first-key-1"], management_keys=["second-key"]) as client:
        for prompt in ("<OD>", "a prompt", '<OD>"\n\\'):
            await client.post("/infer/lmm", json=body(api_key="first-key-1", prompt=prompt, stream=prompt == "<OD>"))
        await client.post("/infer/lmm", json=body(api_key="wrong-key"))
        head = {"authorization": "Bearer second-key"}
        plain = await client.get("/metrics", headers=head)
        accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
        openmetrics = await client.get("/metrics", headers={**head, "accept": accept})
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    for families in (text_string_to_metric_families(plain.text), openmetrics_families(openmetrics.text)):
        found = {family.name: family for family in families}
        for row in TABLE:
            family = found[row.name.removesuffix("_total") if row.kind == "counter" else row.name]
            assert (family.type, family.documentation) == (row.kind, row.text)
            assert family.samples, row.name
            for sample in family.samples:
                assert set(sample.labels) - {"le"} == set(row.labels), sample


async def test_times_of_the_stages_are_those_of_the_engine() -> None:
    async with client_of(FakeEngine(), api_keys=["first-key-1"], management_keys=["second-key"]) as client:
        await client.post("/infer/lmm", json=body(api_key="first-key-1", prompts=["<OD>", "a prompt"], prompt=None))
        text = (await client.get("/metrics", headers={"authorization": "Bearer second-key"})).text
    for line in (
        f'florence2_queue_seconds_sum{{model="florence-2-base"}} {2 * TIMING.queue_s}',
        f'florence2_decode_seconds_sum{{model="florence-2-base"}} {2 * TIMING.decode_s}',
        f'florence2_parse_seconds_sum{{model="florence-2-base"}} {2 * TIMING.parse_s}',
        f'florence2_first_token_seconds_sum{{model="florence-2-base"}} {2 * TIMING.first_token_s}',
        f'florence2_compute_seconds_total{{model="florence-2-base"}} {2 * TIMING.compute_s}',
        f'florence2_key_compute_seconds_total{{key="key-1"}} {2 * TIMING.compute_s}',
        'florence2_key_images_total{key="key-1"} 1.0',
        'florence2_request_seconds_count{model="florence-2-base"} 1.0',
        'florence2_engine_seconds_count{model="florence-2-base",task="several"} 1.0',
    ):
        assert line in text, line


async def test_an_engine_that_can_not_tell_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        assert 'florence2_rows_max{model="florence-2-demo"} 48.0' in (await client.get("/metrics")).text
        monkeypatch.setattr(engine, "stats", lambda: 1 / 0)
        text = (await client.get("/metrics")).text
    assert "florence2_rows_max{" not in text
    assert "florence2_models_loaded 1.0" in text
    assert 'florence2_process_memory_bytes{process="server"}' in text


def test_series_are_bounded() -> None:
    metrics = Metrics()
    for number in range(3 * MAX_NAMES):
        answered = Answered(f"someone/model-{number}", "<OD>", [], "url", f"key-{number}", 0.0, 0.1, 0.1, 0.1, 0.1)
        metrics.note_answer(answered)
    lines = rendered(metrics.collect())[0].decode().splitlines()
    for name, label in (("florence2_answers_total", "model"), ("florence2_key_images_total", "key")):
        found = [line for line in lines if line.startswith(name)]
        assert len(found) == MAX_NAMES + 1
        assert found[-1].endswith(f" {2 * MAX_NAMES}.0")
        assert f'{label}="others"' in found[-1]


def test_labels_are_few() -> None:
    assert task_label("<OD>") == "<OD>"
    assert task_label("<CAPTION_TO_PHRASE_GROUNDING>a dog") == "<CAPTION_TO_PHRASE_GROUNDING>"
    assert task_label("what is this?") == "free"


def record() -> logging.LogRecord:
    made = logging.LogRecord("florence2.x", logging.INFO, "file", 1, "request", (), None)
    setattr(made, FIELDS, {"path": "/infer/lmm", "status": 200, "model": None})
    return made


def test_log_lines_as_json() -> None:
    line = json.loads(JsonFormatter().format(record()))
    assert (line["level"], line["message"], line["path"], line["status"]) == ("info", "request", "/infer/lmm", 200)
    assert line["time"].endswith("+00:00")


def test_tracebacks_in_json() -> None:
    made = record()
    try:
        raise ValueError("broken")
    except ValueError:
        made.exc_info = sys.exc_info()
    assert "ValueError: broken" in json.loads(JsonFormatter().format(made))["traceback"]


def test_log_lines_as_text() -> None:
    assert TextFormatter().format(record()).endswith("request path=/infer/lmm status=200")


def test_the_text_of_a_line_has_its_traceback_below() -> None:
    made = record()
    try:
        raise ValueError(f"broken by {'a' * 30} and {'word ' * 200}")
    except ValueError:
        made.exc_info = sys.exc_info()
    with noting("the-id"):
        first, *_, last = TextFormatter().format(made).splitlines()
    assert first.endswith("request request_id=the-id path=/infer/lmm status=200")
    assert last.startswith("ValueError: broken by … and word word")
    assert len(last) == MAX_MESSAGE_COLUMNS


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/infer/lmm/florence-2-base", "/infer/lmm/florence-2-base"),
        ("/infer/lmm/microsoft/Florence-2-large-ft", "/infer/lmm/microsoft/Florence-2-large-ft"),
        ("/infer/lmm?api_key=short", "/infer/lmm"),
        ("/0123456789abcdef0123/x", "/…/x"),
        ("/x" * 300, "/x" * 99 + "/…"),
    ],
)
def test_paths_are_logged_without_what_may_be_a_key(path: str, shown: str) -> None:
    assert shown_path(path) == shown
