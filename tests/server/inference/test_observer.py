"""What observers are given of each image: durations that follow each other, and the name of the key."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from fixtures.fake_engine import FakeEngine
from florence2.server.inference.observer import Answered, Failed
from tests.server.fakes import body, client_of, image_field

pytestmark = pytest.mark.anyio
WAIT_S = 0.05


class Noted:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.answered: list[Answered] = []
        self.failed: list[Failed] = []

    def note_answer(self, answered: Answered) -> None:
        self.answered.append(answered)

    def note_failure(self, failed: Failed) -> None:
        self.failed.append(failed)


def observe(client: Any) -> Noted:
    noted = Noted()
    client.app.state.server.inference._observers.append(noted)
    return noted


async def test_fetching_and_preprocessing_are_measured_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow_fetch(image: Any, _: object) -> object:
        await asyncio.sleep(WAIT_S)
        return image.value

    monkeypatch.setattr("florence2.server.roboflow.image_field.fetch", slow_fetch)
    async with client_of(FakeEngine(), api_keys=["first-key-1", "second-key"]) as client:
        noted, began_at = observe(client), time.perf_counter()
        await client.post("/infer/lmm", json=body(api_key="second-key", prompt="<OD>"))
        total_s = time.perf_counter() - began_at
    (answered,) = noted.answered
    assert (answered.model, answered.task, answered.source, answered.key_name) == ("florence-2-base", "<OD>", "base64", "key-2")
    assert WAIT_S <= answered.fetch_s < answered.image_s == answered.fetch_s + answered.preprocess_s
    assert 0 < answered.decode_s < answered.preprocess_s < WAIT_S
    assert began_at < answered.began_at
    assert answered.image_s < answered.total_s < total_s


async def test_failures_name_the_key_and_the_code() -> None:
    async with client_of(FakeEngine(), api_keys=["first-key-1"]) as client:
        noted = observe(client)
        await client.post("/infer/lmm", json=body(api_key="first-key-1", image=image_field(b"no image")))
    (failed,) = noted.failed
    assert (failed.model, failed.task, failed.code, failed.key_name) == ("florence-2-base", "<CAPTION>", "invalid_image", "key-1")
    assert failed.total_s > 0
    assert noted.answered == []


async def test_an_observer_that_raises_fails_no_answer_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("it can't count")

    async with client_of(FakeEngine()) as client:
        broken = observe(client)
        broken.note_answer = broken.note_failure = fail  # type: ignore[method-assign]
        noted = observe(client)
        assert (await client.post("/infer/lmm", json=body())).status_code == 200
        assert (await client.post("/infer/lmm", json=body(image=image_field(b"no image")))).status_code == 400
    assert (len(noted.answered), len(noted.failed)) == (1, 1)
    assert "Noted could not note an image" in caplog.text
