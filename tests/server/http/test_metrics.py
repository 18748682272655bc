"""What Prometheus and the log get to see."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from fixtures.fake_engine import FakeEngine
from florence2.server.http.logs import FIELDS, JsonFormatter, TextFormatter
from florence2.server.inference.observer import task_label
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
