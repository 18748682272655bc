"""What a client is told when something is wrong."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from fixtures.fake_engine import FakeEngine
from florence2 import errors
from florence2.server import errors as server_errors
from tests.server.fakes import body, client_of, image_field

pytestmark = pytest.mark.anyio

SECRET = "TOP-SECRET-KEY"


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in body().items() if name not in names}


MISTAKES: list[tuple[dict[str, Any], int, str, str | None]] = [
    (without("prompt"), 400, "invalid_prompt", "prompt"),
    (body(prompt=None), 400, "invalid_prompt", "prompt"),
    (body(prompt="<OD>cat"), 400, "invalid_prompt", "prompt"),
    (body(prompt="<OD><CAPTION>"), 400, "invalid_prompt", "prompt"),
    (body(prompt="find <OD> here"), 400, "invalid_prompt", "prompt"),
    (body(prompt="see <image>"), 400, "invalid_prompt", "prompt"),
    (body(prompt="<CAPTION_TO_PHRASE_GROUNDING>"), 400, "invalid_prompt", "text"),
    (body(prompt="<REGION_TO_OCR>"), 400, "invalid_prompt", "region"),
    (body(prompt="<FOO>"), 400, "unknown_task", "prompt"),
    (body(prompt="<REGION_TO_OCR>", region=[5, 5, 1, 1]), 400, "invalid_region", "region"),
    (body(prompt="<REGION_TO_OCR>", region=[0, 0, 65, 48]), 400, "invalid_region", "region"),
    (body(prompt="x" * 9000), 400, "prompt_too_long", "prompt"),
    (body(prompt="word " * 300), 400, "prompt_too_long", "prompt"),
    (body(prompts=["<OD>"]), 400, "invalid_prompt", "prompt"),
    (body(prompt=None, prompts=[]), 400, "invalid_prompt", "prompts"),
    (body(prompt=None, prompts=["<OD>", "<OD>cat"]), 400, "invalid_prompt", "prompts[1].prompt"),
    (body(prompt=None, prompts=["<OD>"] * 17), 413, "too_many_items", "prompts"),
    (body(prompt=None, prompts=[{"prompt": "<OD>", "text": 3}]), 422, "validation_failed", "prompts.0.text"),
    (body(image=[]), 400, "invalid_image", "image"),
    (body(image=[image_field()] * 65), 413, "too_many_items", "image"),
    (body(max_new_tokens=0), 400, "invalid_option", "max_new_tokens"),
    (body(max_new_tokens=3.5), 422, "validation_failed", "max_new_tokens"),
    (body(num_beams=99), 400, "invalid_option", "num_beams"),
    (body(coordinates="inches"), 422, "validation_failed", "coordinates"),
    (without("image"), 422, "validation_failed", "image"),
    (without("model_id"), 422, "validation_failed", "model_id"),
    (body(model_id=None), 422, "validation_failed", "model_id"),
    (body(model_id=3), 422, "validation_failed", "model_id"),
    (body(prompt=["<OD>"]), 422, "validation_failed", "prompt"),
    (body(image="text"), 422, "validation_failed", "image"),
    (body(image={"value": "x"}), 422, "validation_failed", "image.type"),
    (body(image=[{"type": None}]), 422, "validation_failed", "image.0.type"),
    (body(enable_thinking="x"), 422, "validation_failed", "enable_thinking"),
    (body(usage_billable="perhaps"), 422, "validation_failed", "usage_billable"),
    (body(model_id="florence-2-huge"), 404, "model_not_found", "model_id"),
    (body(model_id=""), 404, "model_not_found", "model_id"),
    (body(model_id="a/b/c"), 404, "model_not_found", "model_id"),
    (body(model_id="../../etc"), 404, "model_not_found", "model_id"),
]


@pytest.mark.parametrize(("content", "status", "code", "field"), MISTAKES)
async def test_mistakes(content: dict[str, Any], status: int, code: str, field: str | None) -> None:
    async with client_of() as client:
        response = await client.post("/infer/lmm", json=content)
    told = response.json()
    assert (response.status_code, told["code"], told["field"]) == (status, code, field), told
    assert told["message"]
    assert told["help_url"] == f"/docs/errors#{code}"
    assert response.headers["x-request-id"]


async def test_wrong_types_are_told_without_repeating_anything() -> None:
    content = {"api_key": SECRET, "image": {"type": 7, "value": "IMAGEDATA"}, "model_id": "florence-2-base", "prompt": 7}
    async with client_of() as client:
        response = await client.post("/infer/lmm", json=content)
        bad_query = await client.post("/infer/lmm", json=body(), params={"api_key": SECRET, "countinference": "perhaps"})
    assert response.status_code == bad_query.status_code == 422
    for told in (response, bad_query):
        assert SECRET not in told.text
        assert "IMAGEDATA" not in told.text
        assert "perhaps" not in told.text
    assert bad_query.json()["detail"][0]["loc"] == ["query", "countinference"]
    detail = response.json()["detail"]
    assert [part["loc"] for part in detail] == [["body", "image", "type"], ["body", "prompt"]]
    assert all(set(part) == {"type", "loc", "msg"} for part in detail)


@pytest.mark.parametrize("content", [b"{", b"", b"[1, 2]", b'"text"', b"\xff\xfe", b"[" * 5000, b'{"a": "' + SECRET.encode()])
async def test_bodies_that_are_no_json_object(content: bytes) -> None:
    async with client_of() as client:
        response = await client.post("/infer/lmm", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["code"] == "validation_failed"
    assert SECRET not in response.text


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/xml"])
async def test_other_content_types(kind: str) -> None:
    async with client_of() as client:
        response = await client.post("/infer/lmm", content=json.dumps(body()).encode(), headers={"Content-Type": kind})
    assert response.status_code == 415
    assert "application/json" in response.json()["message"]


async def test_compressed_body() -> None:
    async with client_of() as client:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        response = await client.post("/infer/lmm", content=b"x", headers=headers)
    assert response.status_code == 415


async def test_broken_form() -> None:
    async with client_of() as client:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        response = await client.post("/infer/lmm", content=b"garbage", headers=headers)
        unbounded = await client.post("/infer/lmm", content=b"garbage", headers={"Content-Type": "multipart/form-data"})
    assert response.status_code in (400, 422)
    assert unbounded.status_code == 400
    assert unbounded.json()["code"] == "invalid_request"


async def test_unknown_model_names_the_known_and_the_closest() -> None:
    async with client_of() as client:
        for name in ("Florence-2-Base", "microsoft/Florence-2-base", "florence2-base"):
            message = (await client.post("/infer/lmm", json=body(model_id=name))).json()["message"]
            assert "Did you mean florence-2-base" in message
            assert "florence-2-large" in message
            assert "florence-pretrains/3" in message


async def test_paths_and_methods() -> None:
    async with client_of() as client:
        missing = await client.get("/nowhere")
        wrong = await client.get("/infer/lmm")
        put = await client.put("/infer/lmm")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    assert put.status_code == 405


async def test_all_methods_of_a_path_are_named() -> None:
    async with client_of() as client:
        for path in ("/healthz", "/readiness", "/"):
            wrong = await client.put(path)
            assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD")
            assert (await client.head(path)).status_code in (200, 503)


async def test_own_faults_have_an_id_and_no_details(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine()
    engine.failure = errors.EngineFailed("a step of the engine failed: RuntimeError: secret shapes")
    async with client_of(engine) as client:
        known = await client.post("/infer/lmm", json=body())
        engine.failure = KeyError("secret name")
        unknown = await client.post("/infer/lmm", json=body())
    assert (known.status_code, known.json()["code"]) == (500, "engine_failed")
    assert (unknown.status_code, unknown.json()["code"]) == (500, "internal")
    for response in (known, unknown):
        assert "secret" not in response.text
        assert "Traceback" not in response.text
        assert response.headers["x-request-id"]
    assert "secret shapes" in caplog.text
    assert "secret name" in caplog.text


async def test_dead_engine_is_a_503_that_may_be_sent_again() -> None:
    engine = FakeEngine()
    engine.is_closed = True
    async with client_of(engine) as client:
        response = await client.post("/infer/lmm", json=body())
    assert response.status_code == 503
    assert response.json()["code"] == "engine_closed"
    assert response.headers["retry-after"] == "1"


async def test_engine_that_cancels_is_no_disconnect() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine) as client:
        call = asyncio.create_task(client.post("/infer/lmm", json=body()))
        while not engine.futures:
            await asyncio.sleep(0.01)
        engine.close(cancel=True)
        response = await call
    assert response.status_code == 503


async def test_public_url_in_links() -> None:
    async with client_of(public_url="https://api.example/") as client:
        response = await client.post("/infer/lmm", json=body(prompt="<FOO>"), headers={"Host": "evil/path?x"})
    assert response.json()["help_url"] == "https://api.example/docs/errors#unknown_task"


@pytest.mark.parametrize("host", ["evil/<script>", "evil", "evil.localhost:80"])
async def test_host_is_not_repeated(host: str) -> None:
    async with client_of() as client:
        response = await client.get("/nope", headers={"Host": host})
    assert response.json()["help_url"] == "/docs/errors#not_found"


async def test_page_of_errors_has_every_code() -> None:
    async with client_of() as client:
        page = (await client.get("/docs/errors")).text
    for code in server_errors.TABLE:
        assert f'id="{code}"' in page


def subclasses(kind: type) -> set[type]:
    return {kind, *(below for child in kind.__subclasses__() for below in subclasses(child))}


def test_every_error_is_in_the_table() -> None:
    raisable = {kind for kind in subclasses(errors.Florence2Error) if kind.__module__ in ("florence2.errors", "florence2.server.errors")}
    assert {kind.__name__ for kind in raisable} - {kind.__name__ for kind in server_errors.REMEDIES} == {
        "TryAgain",
        "DatasetError",
    }  # the server reads no data sets
    assert len(server_errors.TABLE) == len(server_errors.REMEDIES)


async def test_access_log_has_no_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="florence2")
    async with client_of(api_keys=SECRET) as client:
        await client.post("/infer/lmm", json=body(api_key=SECRET))
        await client.post("/infer/lmm", json=body(), params={"api_key": SECRET})
        await client.post("/infer/lmm", json=body(), headers={"Authorization": f"Bearer {SECRET}"})
        await client.post("/infer/lmm", json=body(api_key="wrong-key"))
    lines = [json.dumps(record.__dict__, default=str) for record in caplog.records]
    assert not [line for line in lines if SECRET in line or "wrong-key" in line]
    assert [record.fields["key"] for record in caplog.records if record.name == "florence2.access"] == ["key-1"] * 3 + [None]  # type: ignore[attr-defined]
