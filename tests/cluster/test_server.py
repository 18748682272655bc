"""The server on a cluster answers as the one of one machine does."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from florence2.engine.engine import load

pytestmark = pytest.mark.slow
SCENE = Path(__file__).parents[2] / "examples" / "scene.png"


@pytest.fixture(scope="module")
def client(server_url: str) -> Any:
    with httpx.Client(base_url=server_url, timeout=60) as client:
        yield client


def ask(client: httpx.Client, **fields: Any) -> httpx.Response:
    image = {"type": "base64", "value": base64.b64encode(SCENE.read_bytes()).decode()}
    return client.post("/infer/lmm", json={"image": image, "model_id": "florence-2-demo", **fields})


def test_answers_equal_those_of_one_machine(client: httpx.Client) -> None:
    with load("florence-2-demo") as engine:
        results = engine.run_many(SCENE, ["<OD>", "<CAPTION>"])
    response = ask(client, prompts=["<OD>", "<CAPTION>"])
    assert response.status_code == 200, response.text
    assert response.json()["response"] == [one.to_dict() for one in results]


def test_a_stream_ends_with_the_whole_answer(client: httpx.Client) -> None:
    whole = ask(client, prompt="<OD>").json()["response"]
    streamed = ask(client, prompt="<OD>", stream=True)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    events = [event.split("\n") for event in streamed.text.strip().split("\n\n") if not event.startswith(":")]
    kinds = [lines[0].removeprefix("event: ") for lines in events]
    assert {"text", "object"} <= set(kinds)
    assert kinds[-1] == "done"
    assert json.loads(events[-1][1].removeprefix("data: "))["response"] == whole


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model_id": "no-such-model", "prompt": "<OD>"}, 404, "model_not_found"),
        ({"prompt": "<REGION_TO_CATEGORY>"}, 400, "invalid_prompt"),
        ({"prompt": "<OD>", "image": {"type": "base64", "value": "AAAA"}}, 400, "invalid_image"),
        ({"prompt": "<OD>", "num_beams": "many"}, 422, "validation_failed"),
    ],
)
def test_mistakes_are_told_as_on_one_machine(client: httpx.Client, fields: dict[str, Any], status: int, code: str) -> None:
    response = ask(client, **fields)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text


def test_a_mistake_that_only_the_replica_sees_names_its_field(client: httpx.Client) -> None:
    cut = base64.b64encode(SCENE.read_bytes()[:1500]).decode()
    for is_streamed in (False, True):  # a refusal is no stream
        response = ask(client, prompt="<OD>", image={"type": "base64", "value": cut}, stream=is_streamed)
        assert response.status_code == 400
        assert (response.json()["code"], response.json()["field"]) == ("invalid_image", "image")
