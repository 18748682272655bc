"""``stream: true`` on ``/infer/lmm``: events as they come to be known, and errors wherever they come."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fixtures.fake_engine import FakeEngine
from florence2.engine.engine import load
from florence2.errors import EngineFailed, OutOfMemory
from florence2.server.http import middleware
from tests.server.fakes import body, client_of, image_bytes, image_field
from tests.server.http.test_streaming import Caller, app_of, server_of, until
from tests.server.scripted import ScriptedEngine, words

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]
BROKEN = {"type": "base64", "value": "AAAA"}


def events_in(content: bytes) -> list[tuple[str, Any]]:
    """The events of a whole stream: kind and data. Each is valid UTF-8 by itself."""
    *blocks, rest = content.split(b"\n\n")
    assert rest == b""
    found = []
    for block in blocks:
        if block == b": keep-alive":
            found.append(("comment", None))
            continue
        kind, data = block.decode().split("\n")
        found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def without_own(content: bytes) -> bytes:
    """The bytes of an answer without what no two answers share."""
    return re.sub(rb'"inference_id":"[0-9a-f-]{36}"|"time":[0-9.e-]+', b"", content)


def without_time(answer: Any) -> Any:
    if isinstance(answer, list):
        return [without_time(each) for each in answer]
    return {name: value for name, value in answer.items() if name not in ("time", "inference_id")}


@asynccontextmanager
async def calling(client: httpx2.AsyncClient, **fields: Any) -> AsyncIterator[Caller]:
    """A client that has sent a request for a stream, and at the end the request is over and holds nothing."""
    caller = Caller(json.dumps(body(stream=True, **fields)).encode())
    call = asyncio.create_task(caller.call(app_of(client), "/infer/lmm"))
    yield caller
    await asyncio.wait_for(call, 10)
    assert server_of(client).admission.num_slots == 0


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prompt": "<OD>", "scores": True, "coordinates": "float", "raw": True, "usage": True, "id": "고양이"},
        {"prompt": "<OCR_WITH_REGION>", "coordinates": "float"},
        {"prompt": "<OPEN_VOCABULARY_DETECTION>", "text": "a\u2028cat\r\nand 🐈"},
        {"prompt": None, "prompts": ["<OD>", "<CAPTION>", "what is it?"], "image": [image_field()] * 2, "raw": True, "usage": True},
        {"prompt": "<OD>", "image": [image_field(), BROKEN, image_field()], "on_error": "item"},
        {"image": [BROKEN], "on_error": "item"},
    ],
)
async def test_the_events_make_the_answer_that_is_not_streamed(fields: dict[str, Any]) -> None:
    async with client_of() as client:
        whole = await client.post("/infer/lmm", json=body(**fields))
        response = await client.post("/infer/lmm", json=body(stream=True, **fields))
    assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-store", "no")
    names = {"x-model-id", "x-model-cold-start", "x-inference-engine", "x-request-id"}
    assert {name: response.headers[name] for name in names - {"x-request-id"}} == {
        "x-model-id": "florence-2-base",
        "x-model-cold-start": "true" if "x-model-load-time" in response.headers else "false",
        "x-inference-engine": "florence2",
    }
    events = events_in(response.content)
    kind, done = events[-1]
    assert kind == "done"
    assert without_own(response.content.rpartition(b"data: ")[2].removesuffix(b"\n\n")) == without_own(whole.content)
    answers = done if isinstance(done, list) else [done]
    for image_index, answer in enumerate(answers):
        errors = [data for kind, data in events if kind == "error" and data["image_index"] == image_index]
        if "error" in answer:
            assert errors == [{**answer["error"], "image_index": image_index}]
            continue
        assert errors == []
        responses = answer["response"] if isinstance(answer["response"], list) else [answer["response"]]
        for prompt_index, one in enumerate(responses):
            place = (image_index, prompt_index)
            mine = [(kind, data) for kind, data in events[:-1] if (data["image_index"], data.get("prompt_index")) == place]
            check_answer(one, mine)


def check_answer(response: dict[str, Any], events: list[tuple[str, Any]]) -> None:
    """The events of one prompt say what its answer says."""
    ((_, answer),) = response.items()
    text = "".join(data["text"] for kind, data in events if kind == "text")
    objects = [data for kind, data in events if kind == "object"]
    if isinstance(answer, str):
        assert (text, objects) == (answer, [])
        return
    assert text == "thing"
    assert [each["object_index"] for each in objects] == [0]
    assert [each["label"] for each in objects] == (answer.get("labels") or answer["bboxes_labels"])
    assert [each["box"] for each in objects] == (answer.get("bboxes") or [objects[0]["box"]])
    assert [each.get("score") for each in objects] == answer.get("scores", [None])


texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=8)


def test_any_text_comes_as_it_was_decided() -> None:
    engine = ScriptedEngine([])
    with asyncio.Runner() as runner:
        context = client_of(engine)
        client = runner.run(context.__aenter__())

        @given(parts=texts)
        @example(["안녕", " 🐈\u200d⬛", "", "\u2028\r\n", '" \\', "é\x00"])
        @settings(max_examples=40, deadline=None)
        def check(parts: list[str]) -> None:
            engine.events = words(*parts)
            response = runner.run(client.post("/infer/lmm", json=body(stream=True)))
            events = events_in(response.content)
            assert [data["text"] for kind, data in events if kind == "text"] == [part for part in parts if part]
            assert events[-1][1]["response"] == {"<CAPTION>": "".join(parts)}

        check()
        runner.run(context.__aexit__(None, None, None))


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/infer/lmm", {"json": body(stream="true")}),
        ("/infer/lmm", {"json": body(stream=1)}),
        ("/infer/lmm/florence-2-base", {"data": {"prompt": "<CAPTION>", "stream": "true"}, "files": {"image": image_bytes()}}),
        (
            "/infer/lmm?model_id=florence-2-base&prompt=a%20cat&stream=1",
            {"content": image_bytes(), "headers": {"content-type": "image/png"}},
        ),
    ],
)
async def test_every_form_of_a_request_can_ask_for_a_stream(path: str, options: dict[str, Any]) -> None:
    async with client_of() as client:
        response = await client.post(path, **options)
    assert response.status_code == 200, response.text
    assert [kind for kind, _ in events_in(response.content)] == ["text", "text", "done"]


@pytest.mark.parametrize("value", [1e9, [], {}, None, "perhaps", 2])
async def test_what_is_no_boolean_is_refused(value: Any) -> None:
    async with client_of() as client:
        response = await client.post("/infer/lmm", json=body(stream=value))
    assert (response.status_code, response.json()["field"]) == (422, "stream")


async def test_false_is_the_answer_as_always() -> None:
    async with client_of() as client:
        response = await client.post("/infer/lmm", json=body(stream=False))
    assert response.headers["content-type"] == "application/json"
    assert "usage" not in response.json()


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"prompt": "<FOO>"}, 400, "unknown_task"),
        ({"image": BROKEN}, 400, "invalid_image"),
        ({"image": [image_field(), BROKEN]}, 400, "invalid_image"),
        ({"model_id": "florence-3"}, 404, "model_not_found"),
        ({"prompt": "<REGION_TO_CATEGORY>", "region": [1, 2, 3000, 4000]}, 400, "invalid_region"),
        ({"num_beams": 0}, 400, "invalid_option"),
        ({"image": [image_field()] * 9}, 429, "overloaded"),
    ],
)
async def test_a_mistake_is_an_ordinary_error(fields: dict[str, Any], status: int, code: str) -> None:
    engine = FakeEngine()
    async with client_of(engine, max_requests=8) as client:
        engine.hold = True
        waiting = asyncio.create_task(client.post("/infer/lmm", json=body()))
        await until(lambda: engine.futures)
        plain = await client.post("/infer/lmm", json=body(**fields))
        response = await client.post("/infer/lmm", json=body(stream=True, **fields))
        engine.release()
        await waiting
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.json() == plain.json()


async def test_an_engine_that_fails_before_the_first_event_is_an_ordinary_error() -> None:
    async with client_of(ScriptedEngine([], OutOfMemory("no memory is left"))) as client:
        response = await client.post("/infer/lmm", json=body(stream=True))
    assert (response.status_code, response.json()["code"]) == (503, "out_of_memory")
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("error", "status", "code", "is_logged"),
    [(OutOfMemory("no memory is left"), 503, "out_of_memory", False), (EngineFailed("a secret"), 500, "engine_failed", True)],
)
async def test_an_engine_that_fails_in_the_middle(
    error: Exception, status: int, code: str, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="florence2")
    async with client_of(ScriptedEngine(words("a", " red"), error, pause_s=0.01)) as client:
        async with calling(client) as caller:
            pass
        metrics = (await client.get("/metrics")).text
    assert caller.is_whole
    assert caller.status == 200
    kinds, data = zip(*events_in(caller.body), strict=True)
    assert kinds == ("text", "text", "error")
    assert {name: data[-1][name] for name in ("code", "status", "field", "help_url")} == {
        "code": code,
        "status": status,
        "field": None,
        "help_url": f"/docs/errors#{code}",
    }
    assert "secret" not in data[-1]["message"]
    (line,) = [record.fields for record in caplog.records if record.name == "florence2.access"]  # type: ignore[attr-defined]
    assert (line["status"], line["code"]) == (200, code)
    assert any(record.exc_info for record in caplog.records) == is_logged
    assert f'florence2_answers_total{{code="{code}",model="florence-2-base",task="<CAPTION>"}} 1.0' in metrics
    assert 'http_requests_total{handler="/infer/lmm",method="POST",status="200"} 1.0' in metrics


async def test_one_of_several_prompts_that_fails_in_the_middle_frees_the_others() -> None:
    engine = ScriptedEngine(words("a"), OutOfMemory("no memory is left"), pause_s=0.01)
    async with (
        client_of(engine) as client,
        calling(client, prompt=None, prompts=["<OD>", "<CAPTION>"], image=[image_field()] * 2) as caller,
    ):
        pass
    assert events_in(caller.body)[-1][1]["code"] == "out_of_memory"
    assert all(future.done() for future in engine.futures)
    assert sum(future.cancelled() for future in engine.futures) >= 1


async def test_comments_come_while_a_request_waits() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine, stream_keep_alive_s=0.02) as client, calling(client) as caller:
        await until(lambda: len(caller.messages) > 3)
        assert caller.status == 200
        engine.release()
    kinds = [kind for kind, _ in events_in(caller.body)]
    assert kinds.count("comment") >= 3
    assert kinds[-3:] == ["text", "text", "done"]


async def test_an_error_behind_a_comment_is_an_event() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine, stream_keep_alive_s=0.02) as client, calling(client) as caller:
        await until(lambda: len(caller.messages) > 1)
        engine.futures[0].set_exception(OutOfMemory("no memory is left"))
    kind, data = events_in(caller.body)[-1]
    assert (kind, data["status"], data["retry_after"]) == ("error", 503, 1)
    assert caller.is_whole


async def test_what_is_wrong_with_a_request_is_an_ordinary_error_however_late_it_is_known() -> None:
    """A model that is still loaded when a comment would be due must not turn refusals into events."""

    def load(source: str, adapters: Any = ()) -> Any:
        time.sleep(0.1)
        return FakeEngine()

    async with client_of(loader=load, stream_keep_alive_s=0.02) as client:
        response = await client.post("/infer/lmm", json=body(stream=True, image={"type": "base64", "value": "bm8gaW1hZ2U="}))
    assert (response.status_code, response.json()["code"]) == (400, "invalid_image")


async def test_time_that_is_up_before_the_first_event_is_an_ordinary_error() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine, request_timeout_s=0.6) as client:
        response = await client.post("/infer/lmm", json=body(stream=True))
        assert server_of(client).admission.num_slots == 0
    assert (response.status_code, response.json()["code"]) == (504, "timed_out")
    assert engine.futures[0].cancelled()


async def test_time_that_is_up_in_the_middle_is_an_event_and_frees_the_rows() -> None:
    engine = ScriptedEngine(words(*["a"] * 100), pause_s=0.02)
    async with client_of(engine, request_timeout_s=0.6) as client, calling(client) as caller:
        pass
    kind, data = events_in(caller.body)[-1]
    assert (kind, data["code"], data["status"]) == ("error", "timed_out", 504)
    assert caller.is_whole
    assert engine.futures[0].cancelled()
    assert 0 < engine.num_reported < 100


async def test_a_client_that_takes_nothing_is_left_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "LAST_PART_S", 0.1)
    engine = ScriptedEngine(words(*["a"] * 100), pause_s=0.02)
    began = time.monotonic()
    async with client_of(engine, request_timeout_s=0.6) as client, calling(client) as caller:
        caller.may_take.clear()
    assert time.monotonic() - began < 5
    assert not caller.messages
    assert engine.futures[0].cancelled()


@pytest.mark.parametrize("keep_alive_s", [0.02, 5.0])
async def test_a_client_that_leaves_the_queue_frees_its_rows(keep_alive_s: float) -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine, stream_keep_alive_s=keep_alive_s) as client:
        async with calling(client, prompt=None, prompts=["<OD>", "<CAPTION>"], image=[image_field()] * 2) as caller:
            await until(lambda: len(engine.futures) == 4 and (caller.messages or keep_alive_s == 5.0))
            caller.has_left.set()
        assert all(future.cancelled() for future in engine.futures)


async def test_a_client_that_leaves_in_the_middle_frees_its_rows() -> None:
    engine = ScriptedEngine(words(*["a"] * 1000), pause_s=0.005)
    async with client_of(engine) as client:
        async with calling(client) as caller:
            await until(lambda: len(caller.messages) > 4)
            caller.has_left.set()
        assert engine.futures[0].cancelled()
        reported = engine.num_reported
        await asyncio.sleep(0.05)
        assert engine.num_reported <= reported + 1
    assert b"event: done" not in caller.body


async def test_a_client_that_leaves_while_the_model_loads() -> None:
    is_over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def load(source: str, adapters: Any = ()) -> Any:
        asyncio.run_coroutine_threadsafe(is_over.wait(), loop).result(10)
        return engine

    engine = FakeEngine()
    async with client_of(loader=load, stream_keep_alive_s=0.02) as client:
        async with calling(client) as caller:
            await until(lambda: server_of(client).admission.num_slots == 1)
            await asyncio.sleep(0.05)
            assert not caller.messages
            caller.has_left.set()
        is_over.set()
        await asyncio.sleep(0.05)
    assert not engine.futures


async def test_a_client_that_leaves_while_its_image_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def fetch(url: str) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(url)
            raise
        raise AssertionError

    engine = FakeEngine()
    async with client_of(engine) as client:
        monkeypatch.setattr(server_of(client).fetcher, "fetch", fetch)
        url = "https://example.com/cat.png"
        async with calling(client, image=[image_field(), {"type": "url", "value": url}]) as caller:
            await until(lambda: engine.futures)
            await asyncio.sleep(0.02)
            assert not caller.messages  # nothing is known of the second image yet
            caller.has_left.set()
        assert ended == [url]


async def test_a_server_that_ends_lets_a_stream_end_or_says_why_not() -> None:
    engine = ScriptedEngine(words(*["a"] * 20), pause_s=0.01)
    async with client_of(engine) as client:
        async with calling(client) as caller:
            await until(lambda: len(caller.messages) > 2)
            server_of(client).admission.is_draining = True
        assert events_in(caller.body)[-1][0] == "done"

        server_of(client).admission.is_draining = False
        caller = Caller(json.dumps(body(stream=True)).encode())
        call = asyncio.create_task(caller.call(app_of(client), "/infer/lmm"))
        await until(lambda: len(caller.messages) > 2)
        server_of(client).admission.is_draining = True
        call.cancel()  # as uvicorn does when its time is up
        await asyncio.wait_for(call, 5)
        assert server_of(client).admission.num_slots == 0
    kind, data = events_in(caller.body)[-1]
    assert (kind, data["code"], data["status"]) == ("error", "draining", 503)
    assert caller.is_whole


TASKS = ["<OD>", "<OCR_WITH_REGION>", "<REFERRING_EXPRESSION_SEGMENTATION>yellow star", "<OPEN_VOCABULARY_DETECTION>star", "<CAPTION>"]


@pytest.mark.slow
@pytest.mark.parametrize(("num_beams", "coordinates"), [(1, "float"), (3, "int")])
async def test_a_model_that_finds_something(num_beams: int, coordinates: str) -> None:
    scene = image_field((ROOT / "examples/scene.png").read_bytes())
    fields = {"model_id": "florence-2-demo", "prompt": None, "prompts": TASKS, "image": [scene, image_field()], "num_beams": num_beams}
    with load("florence-2-demo") as engine:
        async with client_of(engine) as client:  # type: ignore[arg-type]
            plain = await client.post("/infer/lmm", json=body(**fields))
            exact = await client.post("/infer/lmm", json=body(stream=True, scores=True, coordinates=coordinates, usage=True, **fields))
            same = await client.post("/infer/lmm", json=body(stream=True, **fields))
    assert without_time(events_in(same.content)[-1][1]) == without_time(plain.json())
    *events, (_, done) = events_in(exact.content)
    num_found = 0
    for image_index, answer in enumerate(done):
        for prompt_index, response in enumerate(answer["response"]):
            place = (image_index, prompt_index)
            mine = [(kind, data) for kind, data in events if (data["image_index"], data["prompt_index"]) == place]
            objects = [data for kind, data in mine if kind == "object"]
            ((_, found),) = response.items()
            if isinstance(found, str):
                assert "".join(data["text"] for _, data in mine) == found
                continue
            num_found += len(objects)
            for name, key in (("labels", "label"), ("scores", "score")):
                lists = (found.get(f"{kind}{name}") for kind in ("", "bboxes_", "polygons_"))
                assert [each[key] for each in objects] == next(filter(None, lists), [])
            for name, key in (("bboxes", "box"), ("quad_boxes", "quad"), ("polygons", "polygons")):
                if found.get(name):
                    assert [each[key] for each in objects] == found[name]
        assert [usage["completion_tokens"] > 0 for usage in answer["usage"]] == [True] * len(TASKS)
    assert num_found >= 6
