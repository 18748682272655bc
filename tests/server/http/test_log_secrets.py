"""What a real process logs at its most talkative: no key, no image, no prompt and no query, and every line in one form."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.server.fakes import body, image_bytes
from tests.server.file_host import FETCHES_LOCALLY, host_of
from tests.server.process import Server, start_server

pytestmark = pytest.mark.slow

KEY, MANAGER, WRONG = "aKeyThatNobodyMaySee0001", "aKeyThatManagesModels0002", "aKeyThatIsNotKnownHere0003"
PROMPT, SIGNATURE = "whatIsTheSecretOfThisPicture", "signatureOfTheAddress0004"
IMAGE = base64.b64encode(image_bytes((97, 53))).decode()
# An answer that fails in the server itself, with a message that repeats what it was given.
PRELUDE = """
from florence2.server.roboflow import routes
write = routes.write_answers
def fail(message, *rest):
    if message.max_new_tokens == 7:
        raise RuntimeError(f"broken on purpose: {message.image}")
    return write(message, *rest)
routes.write_answers = fail
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = start_server(prelude=PRELUDE, api_keys=KEY, management_keys=MANAGER, log_level="debug", log_json=True, **FETCHES_LOCALLY)
    yield server
    server.stop()


def ask_everywhere(server: Server) -> None:
    """Send keys, images and prompts in every place, right ones and wrong ones."""
    url = f"{server.url}/infer/lmm"
    image = {"type": "base64", "value": IMAGE}
    with httpx2.Client(timeout=60) as client, host_of({f"/image.png?{SIGNATURE}": image_bytes()}) as host:

        def post(address: str = url, **options: Any) -> httpx2.Response:
            return client.post(address, **options)

        plain = body(image=image, prompt=PROMPT)
        assert post(json={**plain, "api_key": KEY}).status_code == 200
        assert post(json={**plain, "api_key": KEY, "stream": True}).status_code == 200
        assert post(json={**plain, "api_key": KEY, "max_new_tokens": 7}, headers={"x-request-id": "the-broken-one"}).status_code == 500
        for key in (KEY, MANAGER, WRONG):
            post(f"{url}?api_key={key}", json={**plain, "api_key": None})
            post(f"{server.url}/infer%2Flmm%3Fapi_key={key}", json=plain)
            post(f"{url}/{key}", json={**plain, "api_key": KEY})
            post(f"{server.url}/{key}/{PROMPT}", json=plain)
            post(json={**plain, "api_key": None}, headers={"authorization": f"Bearer {key}", "x-api-key": key, "cookie": f"key={key}"})
            post(json={**plain, "model_id": key, "api_key": KEY})
            post(json={**plain, "prompt": None, "api_key": key})
            post(json={**plain, "image": {"type": key, "value": IMAGE}, "api_key": KEY})
            post(data={"api_key": key, "prompt": PROMPT, "model_id": "florence-2-base"}, files={"image": image_bytes()})
            post(content=f"{{{key}".encode(), headers={"content-type": "application/json"})
            post(f"{server.url}/v1/chat/completions", json={"model": key, "messages": PROMPT}, headers={"authorization": f"Bearer {key}"})
            client.get(f"{server.url}/metrics?api_key={key}")
            client.get(f"{server.url}/usage?api_key={key}")
            client.post(f"{server.url}/model/add", json={"model_id": "florence-2-large", "api_key": key})
        for path in ("image.png", "none.png"):
            post(json={**plain, "api_key": KEY, "image": {"type": "url", "value": f"{host}/{path}?{SIGNATURE}"}})
        post(json={**plain, "api_key": KEY, "image": {"type": "url", "value": f"http://user:{SIGNATURE}@127.0.0.1:9/{SIGNATURE}.png"}})
    address = httpx2.URL(server.url)
    for head in (
        f"GET /{KEY}?api_key={KEY} HTTP/9\r\n\r\n",
        f"POST /infer/lmm?api_key={KEY} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n",
    ):
        with socket.create_connection((address.host, address.port or 80)) as connection:
            connection.sendall(head.encode())


def check_stages(counted: str) -> None:
    """The stages of a real engine's answers are there, and take no longer than the answers."""

    def value(name: str) -> float:
        return sum(float(line.split()[-1]) for line in counted.splitlines() if line.startswith(name))

    stages = ("queue", "vision", "prefill", "decode", "parse")
    assert all(value(f"florence2_{stage}_seconds_count") > 0 for stage in stages)
    assert 0 < sum(value(f"florence2_{stage}_seconds_sum") for stage in stages) <= value("florence2_request_seconds_sum")
    assert value("florence2_engine_seconds_sum") > 0
    assert value("florence2_compute_seconds_total") > 0
    assert value("florence2_engine_busy_seconds_total") > 0  # what the last heartbeat said
    assert value("florence2_model_memory_bytes") > 10_000
    assert value("florence2_image_cache_hits_total") > 0


def check_engine(counted: str) -> None:
    """The engine's process is seen."""
    for line in ("florence2_engine_up 1.0", "florence2_engine_restarts_total 0.0"):
        assert line in counted.splitlines()
    assert 'florence2_process_memory_bytes{process="engine"}' in counted


def test_nothing_secret_is_logged_at_any_level(server: Server) -> None:
    ask_everywhere(server)
    server.wait_for("broken on purpose")
    server.wait_for("client_left")
    server.wait_for("bad_framing")
    counted = httpx2.get(f"{server.url}/metrics", headers={"authorization": f"Bearer {MANAGER}"}).text
    assert 'florence2_refusals_total{code="bad_framing"} 1.0' in counted
    check_stages(counted)
    check_engine(counted)
    server.stop()
    log = server.log
    assert len(log.splitlines()) > 50
    for secret in (KEY, MANAGER, WRONG, PROMPT, SIGNATURE, "api_key=", IMAGE[60:]):
        assert secret not in log, next(line for line in log.splitlines() if secret in line)
    lines = [json.loads(line) for line in log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    (failure,) = [line for line in lines if line["message"] == "request failed"]
    assert failure["request_id"] == "the-broken-one"
    assert "RuntimeError: broken on purpose" in failure["traceback"]
    answered = [line for line in lines if line.get("tokens")]
    assert "key-1" in {line["key"] for line in answered}
    assert all(line["run_ms"] > 0 and line["queue_ms"] >= 0 and line["model"] == "florence-2-base" for line in answered)
