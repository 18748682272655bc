"""Bounds: bodies, places, time, and callers who leave."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from fixtures.fake_engine import FakeEngine
from florence2.engine_stats import EngineStats
from florence2.server.errors import Overloaded
from florence2.server.inference.admission import Admission
from florence2.server.settings import Settings
from tests.server.fakes import body, client_of, image_bytes, image_field

pytestmark = pytest.mark.anyio


async def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def chunks(count: int, size: int = 1000) -> AsyncIterator[bytes]:
    yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    for _ in range(count):
        yield b" " * size


async def test_body_that_says_how_large_it_is() -> None:
    async with client_of(max_body_bytes=5000) as client:
        response = await client.post("/infer/lmm", content=b" " * 5001, headers={"Content-Type": "application/json"})
        fits = await client.post("/infer/lmm", content=b" " * 5000, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert fits.status_code == 422


@pytest.mark.parametrize("kind", ["application/json", "image/png", "multipart/form-data; boundary=x"])
async def test_body_that_does_not(kind: str) -> None:
    async with client_of(max_body_bytes=5000) as client:
        response = await client.post("/infer/lmm", content=chunks(8), headers={"Content-Type": kind})
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


async def test_body_that_trickles_in() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    async with client_of(request_timeout_s=0.1) as client:
        client.timeout = httpx2.Timeout(10)
        headers = {"Content-Type": "application/json"}
        call = asyncio.create_task(client.post("/infer/lmm", content=slowly(), headers=headers))
        admission = client.app.state.server.admission  # type: ignore[attr-defined]
        await until(lambda: admission.num_slots == 1)
        await until(lambda: admission.num_slots == 0)
        call.cancel()


async def test_too_many_pixels_are_told_by_the_header() -> None:
    async with client_of(max_image_pixels=10_000) as client:
        fits = await client.post("/infer/lmm", json=body(image=image_field(image_bytes((100, 100)))))
        response = await client.post("/infer/lmm", json=body(image=image_field(image_bytes((101, 100)))))
    assert fits.status_code == 200
    assert (response.status_code, response.json()["code"]) == (413, "image_too_large")
    assert "101 x 100" in response.json()["message"]


async def test_full_server_says_try_again() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine, max_requests=3) as client:
        calls = [asyncio.create_task(client.post("/infer/lmm", json=body())) for _ in range(3)]
        await until(lambda: len(engine.futures) == 3)
        refused = await client.post("/infer/lmm", json=body())
        engine.release()
        assert {(await call).status_code for call in calls} == {200}
        assert (await client.post("/infer/lmm", json=body())).status_code == 200
    assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
    assert refused.headers["retry-after"] == "1"


async def test_images_and_prompts_count() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine, max_requests=6) as client:
        two_by_two = body(image=[image_field()] * 2, prompt=None, prompts=["<OD>", "<OCR>"])
        call = asyncio.create_task(client.post("/infer/lmm", json=two_by_two))
        await until(lambda: len(engine.futures) == 4)
        assert (await client.post("/infer/lmm", json=two_by_two)).status_code == 429
        fits = asyncio.create_task(client.post("/infer/lmm", json=body(image=[image_field()] * 2)))
        await until(lambda: len(engine.futures) == 6)
        engine.release()
        assert (await call).status_code == (await fits).status_code == 200
        assert client.app.state.server.admission.num_slots == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("on_error", [None, "item"])
@pytest.mark.parametrize("broken", range(3))
async def test_a_list_with_a_broken_image_leaves_no_bytes_behind(broken: int, on_error: str | None) -> None:
    images = [image_field(image_bytes((900, 600))) for _ in range(3)]  # takes longer than to find out what is broken
    images[broken] = image_field(b"\x89PNG\r\n\x1a\n broken")
    more = {} if on_error is None else {"on_error": on_error}
    async with client_of() as client:
        admission = client.app.state.server.admission  # type: ignore[attr-defined]
        for _ in range(10):
            response = await client.post("/infer/lmm", json=body(image=images, **more))
            assert response.status_code == (400 if on_error is None else 200)
        for _ in range(5):
            await asyncio.sleep(0.01)  # for whatever is still on its way
        assert (admission.num_slots, admission.num_bytes) == (0, 0)


async def test_a_caller_who_leaves_a_list_leaves_no_bytes_behind() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine) as client:
        admission = client.app.state.server.admission  # type: ignore[attr-defined]
        for _ in range(5):
            call = asyncio.create_task(client.post("/infer/lmm", json=body(image=[image_field()] * 4)))
            await until(lambda: admission.num_slots >= 4)
            call.cancel()
            await until(lambda: admission.num_slots == 0)
        await asyncio.sleep(0.05)
        assert admission.num_bytes == 0


def test_a_permit_that_has_left_counts_nothing() -> None:
    admission = Admission(Settings())
    with admission.enter("a") as permit:
        permit.add_bytes(100)
    permit.hold_bytes(5)
    assert admission.num_bytes == 0


def test_a_request_larger_than_the_bound_passes_alone() -> None:
    admission = Admission(Settings(max_requests=3))
    with admission.enter("") as permit:
        permit.grow(9)
        with pytest.raises(Overloaded), admission.enter(""):
            pass
    assert admission.num_slots == 0
    with admission.enter(""), admission.enter("") as permit, pytest.raises(Overloaded):
        permit.grow(3)
    assert admission.num_slots == 0


async def test_one_key_can_not_take_all_places() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine, api_keys="greedy-key,modest-key", max_requests=10, max_requests_per_key=2) as client:
        calls = [asyncio.create_task(client.post("/infer/lmm", json=body(api_key="greedy-key"))) for _ in range(2)]
        await until(lambda: len(engine.futures) == 2)
        refused = await client.post("/infer/lmm", json=body(api_key="greedy-key"))
        other = asyncio.create_task(client.post("/infer/lmm", json=body(api_key="modest-key")))
        await until(lambda: len(engine.futures) == 3)
        engine.release()
        assert {(await call).status_code for call in [*calls, other]} == {200}
        assert (await client.post("/infer/lmm", json=body(api_key="greedy-key"))).status_code == 200
    assert refused.status_code == 429
    assert "this key" in refused.json()["message"]


async def test_time_limit() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine, request_timeout_s=0.6) as client:
        response = await client.post("/infer/lmm", json=body())
    assert (response.status_code, response.json()["code"]) == (504, "timed_out")
    assert all(future.cancelled() for future in engine.futures)


async def leave_when(client: httpx2.AsyncClient, content: bytes, condition: Any) -> list[dict[str, Any]]:
    """Send a request, and close the connection once ``condition`` holds; what was answered."""
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await until(condition)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"host", b"server")]
    scope = {"type": "http", "method": "POST", "path": "/infer/lmm", "raw_path": b"/infer/lmm", "query_string": b"", "headers": headers}
    scope |= {"asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "server": ("server", 80), "root_path": ""}
    await client.app(scope, receive, send)  # type: ignore[attr-defined]
    return sent


async def test_who_leaves_frees_the_engine() -> None:
    engine = FakeEngine()
    engine.hold = True
    content = httpx2.Request("POST", "http://x", json=body(image=[image_field()] * 3)).content
    async with client_of(engine) as client:
        sent = await leave_when(client, content, lambda: len(engine.futures) == 3)
        await until(lambda: all(future.cancelled() for future in engine.futures))
        assert client.app.state.server.admission.num_slots == 0  # type: ignore[attr-defined]
    assert sent[0]["status"] == 499


async def test_who_leaves_while_the_image_is_decoded_frees_the_engine_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from florence2.server.inference import service as answers

    read = answers.decode

    is_decoding, may_go_on = threading.Event(), threading.Event()

    def slowly(*arguments: Any, **options: Any) -> Any:
        is_decoding.set()
        may_go_on.wait(10)
        return read(*arguments, **options)

    monkeypatch.setattr(answers, "decode", slowly)
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine) as client:
        await leave_when(client, httpx2.Request("POST", "http://x", json=body()).content, is_decoding.is_set)
        may_go_on.set()
        await until(lambda: engine.futures and engine.futures[0].cancelled())


async def test_health_answers_while_a_hundred_wait() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine) as client:
        calls = [asyncio.create_task(client.post("/infer/lmm", json=body())) for _ in range(100)]
        await until(lambda: len(engine.futures) == 100)
        assert (await client.get("/healthz")).status_code == 200
        assert "florence2_requests_under_way 100.0" in (await client.get("/metrics")).text
        engine.release()
        assert {(await call).status_code for call in calls} == {200}


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def refusal_of(admission: Admission, num_slots: int = 1, key: str = "") -> Overloaded:
    """What one more request is refused with."""
    with pytest.raises(Overloaded) as caught, admission.enter(key) as permit:
        permit.grow(num_slots)
    return caught.value


def test_retry_after_is_measured() -> None:
    clock = Clock()
    admission = Admission(Settings(max_requests=10), clock=clock)
    assert sorted(serve_one(admission, clock, taking_s=0.5) for _ in range(60)) == [0] * 60  # two slots a second, one at a time
    with admission.enter("") as permit:
        permit.grow(10)
        assert refusal_of(admission).retry_after_s == 1
        # Each that is refused is told the time behind those who were told before.
        waits = [refusal_of(admission).retry_after_s for _ in range(9)]
        assert waits == sorted(waits)
        assert waits[-1] in (5, 6)
        assert refusal_of(admission, 8).retry_after_s > waits[-1]
        assert [refusal_of(admission).retry_after_s for _ in range(500)][-1] == 60
    assert admission.num_slots == 0


def serve_one(admission: Admission, clock: Clock, taking_s: float) -> int:
    with admission.enter(""):
        clock.now += taking_s
    return admission.num_slots


def test_retry_after_where_nothing_is_known() -> None:
    clock = Clock()
    admission = Admission(Settings(max_requests=1), clock=clock)
    with admission.enter(""):
        assert refusal_of(admission).retry_after_s == 1
        clock.now += 20  # and nothing was freed in all that time
        assert 10 < refusal_of(admission).retry_after_s <= 20
        clock.now += 3600
        assert refusal_of(admission).retry_after_s <= 60


def test_what_a_key_frees_counts_for_its_own_limit() -> None:
    clock = Clock()
    admission = Admission(Settings(max_requests=100, max_requests_per_key=2), clock=clock)
    with admission.enter("a"), admission.enter("a"), admission.enter("b"):
        for _ in range(40):
            serve_one(admission, clock, taking_s=1.0)
        alone = refusal_of(admission, key="a").retry_after_s
        with admission.enter("b"), admission.enter("c") as permit:
            permit.grow(2)
            assert refusal_of(admission, key="a").retry_after_s > alone  # one of three turns is its own, not two


def test_pictures_that_wait_in_the_engine_count() -> None:
    waiting = [0]
    admission = Admission(Settings(max_waiting_bytes=1000), lambda: EngineStats(waiting_bytes=waiting[0]))
    with admission.enter(""):
        waiting[0] = 1001
        assert "pictures of 1001 bytes wait" in refusal_of(admission).message
        waiting[0] = 1000
        with admission.enter(""):
            pass


class Load:
    """Admission over an engine that answers two requests a second, of one key after the other, while 20 wait."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.stats = EngineStats(num_running=2, num_waiting=20)
        self.admission = Admission(Settings(), lambda: self.stats, self.clock)
        self.leaving = ExitStack()
        for _ in range(20):
            self.leaving.enter_context(self.admission.enter("busy")).grow(1)

    def serve(self, count: int, *, are_answered: bool = True) -> None:
        for _ in range(count):
            with self.admission.enter("busy") as permit:
                permit.grow(1)
                self.clock.now += 0.5
                permit.is_answered = are_answered

    def ask(self, left_s: float, num_slots: int = 1, key: str = "busy") -> None:
        with self.admission.enter(key, seconds_left=lambda: left_s) as permit:
            permit.grow(num_slots)


def test_what_cannot_be_answered_in_its_time_is_refused_at_once() -> None:
    load = Load()
    load.ask(0.1)  # nothing is known yet
    load.serve(40)
    with pytest.raises(Overloaded, match=r"takes about 1[01] s at present, and 9 s are left") as caught:
        load.ask(9)  # 20 are before it, two a second are answered
    assert caught.value.retry_after_s in (1, 2)
    load.ask(12)
    with pytest.raises(Overloaded):
        load.ask(12, num_slots=10)
    load.ask(2.5, key="other")  # keys take turns
    load.serve(40, are_answered=False)  # what ends unanswered frees its place and says nothing good of the rate
    with pytest.raises(Overloaded):
        load.ask(12)
    load.stats = EngineStats(num_running=2)
    load.ask(0.1)  # nothing waits: whatever was measured, it begins at once
    load.leaving.close()
    assert load.admission.num_slots == 0


def test_light_load_says_nothing_of_how_fast_models_are() -> None:
    load = Load()
    load.stats = EngineStats(num_running=1)
    load.serve(100)
    load.stats = EngineStats(num_running=2, num_waiting=20)
    load.ask(0.1)


def test_slow_bodies_are_not_before_anyone() -> None:
    load = Load()
    load.serve(40)
    with ExitStack() as bodies:
        for _ in range(100):
            bodies.enter_context(load.admission.enter("busy"))
        load.ask(12)


async def test_bytes_are_those_of_the_files_once_they_are_read() -> None:
    engine = FakeEngine()
    engine.hold = True
    data = image_bytes((300, 200))
    async with client_of(engine) as client:
        admission: Admission = client.app.state.server.admission  # type: ignore[attr-defined]
        call = asyncio.create_task(client.post("/infer/lmm", json=body(image=[image_field(data)] * 3, source="x" * 5000)))
        await until(lambda: len(engine.futures) == 3)
        await until(lambda: admission.num_bytes == 3 * len(data))
        engine.release()
        assert (await call).status_code == 200
        assert admission.num_bytes == 0
