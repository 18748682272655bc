"""The longest time of a request, and the header that shortens it, in every API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fixtures.fake_engine import FakeEngine
from tests.server.fakes import body, client_of, image_field

pytestmark = pytest.mark.anyio

CHAT = {
    "model": "florence-2-base",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<CAPTION>"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64," + image_field()["value"]}},
            ],
        }
    ],
}
CALLS = {
    "lmm": ("/infer/lmm", body()),
    "lmm streamed": ("/infer/lmm", body(stream=True)),
    "chat": ("/v1/chat/completions", CHAT),
    "chat streamed": ("/v1/chat/completions", {**CHAT, "stream": True}),
}


def error_of(response: Any) -> dict[str, Any]:
    content = response.json()
    return content.get("error", content)


@pytest.mark.parametrize("call", CALLS)
async def test_header_ends_a_request_sooner_and_frees_its_rows(call: str) -> None:
    path, content = CALLS[call]
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine) as client:
        response = await client.post(path, json=content, headers={"x-request-timeout": "0.3"})
        admission = client.app.state.server.admission  # type: ignore[attr-defined]
        assert admission.num_slots == 0
    assert len(engine.futures) == 1
    assert all(future.cancelled() for future in engine.futures)
    # A stream whose head is not sent yet fails as any other request does; one whose head is sent says so in its last event.
    assert response.status_code == 504 or (response.status_code == 200 and "timed_out" in response.text.splitlines()[-2])
    assert "0.3 s" in response.text
    assert "x-request-timeout" in response.text


@pytest.mark.parametrize("value", ["", "soon", "-1", "0", "nan", "inf", "1e999", "1_0", "٣", "9" * 40])
@pytest.mark.parametrize("path", ["/infer/lmm", "/v1/chat/completions", "/playground/image"])
async def test_header_that_is_no_time(path: str, value: str) -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        response = await client.post(path, json=body(), headers={"x-request-timeout": value.encode()})  # type: ignore[dict-item]
    assert response.status_code == 400
    error = error_of(response)
    assert error["code"] == "invalid_request"
    assert "x-request-timeout is a number of seconds above 0" in error["message"]
    assert not engine.asked


async def test_header_sent_twice() -> None:
    async with client_of() as client:
        response = await client.post("/infer/lmm", json=body(), headers=[("x-request-timeout", "1"), ("x-request-timeout", "2")])
    assert response.status_code == 400
    assert "2 of them" in response.json()["message"]


async def test_header_does_not_lengthen_the_time() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine, request_timeout_s=0.2) as client:
        response = await client.post("/infer/lmm", json=body(), headers={"x-request-timeout": "60"})
    assert (response.status_code, response.json()["code"]) == (504, "timed_out")
    assert "0.2 s" in response.json()["message"]


async def test_time_begins_with_the_head() -> None:
    """What the body has taken is not there for the answer any more."""
    engine = FakeEngine()
    engine.hold = True
    whole = body()

    async def slowly() -> AsyncIterator[bytes]:
        yield b" "
        await asyncio.sleep(0.4)
        yield json.dumps(whole).encode()

    async with client_of(engine) as client:
        began = asyncio.get_running_loop().time()
        headers = {"content-type": "application/json", "x-request-timeout": "0.6"}
        response = await client.post("/infer/lmm", content=slowly(), headers=headers)
        took = asyncio.get_running_loop().time() - began
    assert response.status_code == 504
    assert took < 0.9
