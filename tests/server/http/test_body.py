"""Bodies that are made to cost: too many values, texts of megabytes, forms of nothing but parts. Nobody else waits for them."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from typing import Any

import httpx2
import pytest

from fixtures.fake_engine import FakeEngine
from florence2.server.http.json_body import MAX_STRUCTURE, parse_object
from tests.server.fakes import body, client_of, image_bytes, image_field

pytestmark = pytest.mark.anyio

MB = 10**6
LONGEST_STALL_S = 0.5  # of the event loop, in a process that shares its processor with other tests
LARGEST_ERROR = 8000
KEY = "a-good-key"


def with_field(name: str, value: str) -> bytes:
    """A request whose field is written as given."""
    fields = {key: value for key, value in body(prompt="<REGION_TO_OCR>").items() if key != name}
    return f'{json.dumps(fields)[:-1]}, "{name}": {value}}}'.encode()


def written(**fields: Any) -> bytes:
    return json.dumps(body(**fields)).encode()


ZEROS, TEXTS = "[" + "0," * 499_999 + "0]", "[" + '"abcdefgh",' * 360_000 + '"a"]'
COSTLY = {
    "zeros as image": with_field("image", ZEROS),
    "zeros as region": with_field("region", ZEROS),
    "zeros as model": with_field("model_id", ZEROS),
    "texts as region": with_field("region", TEXTS),
    "texts as prompts": with_field("prompts", TEXTS),
    "fewer zeros as image": with_field("image", "[" + "0," * 90_000 + "0]"),
    "fewer zeros as region": with_field("region", "[" + "0," * 90_000 + "0]"),
    "fewer texts as region": with_field("region", "[" + '"a",' * 90_000 + '"a"]'),
    "regions of many prompts": with_field("prompts", json.dumps([{"prompt": "<OD>", "region": ["x"] * 5000}] * 16)),
    "many images of nothing": with_field("image", "[" + "{}," * 40_000 + "{}]"),
    "lists of one image": with_field("image", json.dumps([[0] * 1000] * 64)),
    "empty lists in an unknown field": with_field("unknown", "[" + "[]," * (6 * MB) + "[]]"),
    "empty objects": with_field("image", "[" + "{}," * (6 * MB) + "{}]"),
    "keys of an object": with_field("image", "{" + ",".join(f'"k{number}":0' for number in range(MB)) + "}"),
    "keys of the request": b"{" + b",".join(b'"k%d":0' % number for number in range(MB)) + b"}",
    "a model of megabytes": with_field("model_id", '"' + "x" * (18 * MB) + '"'),
    "a model of slashes": with_field("model_id", '"' + "/a" * (9 * MB) + '"'),
    "an id of megabytes": with_field("id", '"' + "x" * (18 * MB) + '"'),
    "a region of megabytes": with_field("region", '"' + "<loc_1>" * (2 * MB) + '"'),
    "a type of megabytes": with_field("image", '{"value": "", "type": "' + "x" * (18 * MB) + '"}'),
    "a prompt of megabytes": with_field("prompt", '"' + "<OD>" * (4 * MB) + '"'),
    "a text of megabytes": with_field("text", '"' + "x " * (9 * MB) + '"'),
    "a source of megabytes": with_field("source", '"' + "x" * (18 * MB) + '"'),
    "a flag of megabytes": with_field("scores", '"' + "x" * (18 * MB) + '"'),
    "a count of megabytes": with_field("num_beams", '"' + "9" * (18 * MB) + '"'),
    "a number of megabytes": with_field("num_beams", "9" * (18 * MB)),
    "a number of 4300 digits": with_field("max_new_tokens", "9" * 4300),
    "a fraction of megabytes": with_field("start", "0." + "9" * (18 * MB) + "x"),
    "escapes": with_field("model_id", '"' + "\\u00e9" * (3 * MB) + '"'),
    "depth": with_field("image", "[" * MB),
    "colons": b"{" + b":" * (19 * MB),
    "white space": b" " * (19 * MB) + b"x",
    "no JSON": b"\xff" * (19 * MB),
}


async def stall_during(call: Any) -> tuple[httpx2.Response, float]:
    """The answer, and the longest time in which the event loop did nothing else."""
    longest, task = 0.0, asyncio.ensure_future(call)
    while not task.done():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - before)
    return task.result(), longest


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTLY)
async def test_costly_json_is_refused_at_once_in_few_words(name: str) -> None:
    async with client_of(max_images=64) as client:
        call = client.post("/infer/lmm", content=COSTLY[name], headers={"Content-Type": "application/json"})
        response, stall = await stall_during(call)
        assert (await client.get("/healthz")).status_code == 200
    assert 400 <= response.status_code < 500, response.text[:500]
    assert stall < LONGEST_STALL_S
    assert len(response.content) < LARGEST_ERROR
    assert len(response.json()["message"]) <= 500


@pytest.mark.parametrize("name", ["zeros as image", "empty lists in an unknown field", "fewer texts as region", "keys of an object"])
async def test_costly_json_takes_little_memory(name: str) -> None:
    content = COSTLY[name]
    async with client_of() as client:
        tracemalloc.start()
        try:
            await client.post("/infer/lmm", content=content, headers={"Content-Type": "application/json"})
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 3 * len(content) + 30 * MB


async def test_many_wrong_parts_are_told_by_the_first_of_them() -> None:
    async with client_of() as client:
        response = await client.post("/infer/lmm", json=body(image=[{}] * 64, prompts=[{}] * 16))
    told = response.json()
    assert response.status_code == 422
    assert len(told["detail"]) == 16
    assert told["field"] == "image.0.type"
    assert "(and 79 more" in told["message"]


async def test_lists_are_counted_before_they_are_looked_at() -> None:
    async with client_of(max_images=3, max_prompts=3) as client:
        images = await client.post("/infer/lmm", json=body(image=[0] * 4))
        prompts = await client.post("/infer/lmm", json=body(prompts=[0] * 4))
    for response, field in ((images, "image"), (prompts, "prompts")):
        assert (response.status_code, response.json()["code"], response.json()["field"]) == (413, "too_many_items", field)


@pytest.mark.parametrize(
    ("field", "longest"), [("id", 256), ("model_id", 512), ("source", 8192), ("source_info", 8192), ("model_type", 8192)]
)
async def test_texts_have_limits(field: str, longest: int) -> None:
    async with client_of() as client:
        fits = await client.post("/infer/lmm", json=body(**{field: "x" * longest}))
        long = await client.post("/infer/lmm", json=body(**{field: "x" * (longest + 1)}))
    assert fits.status_code == (404 if field == "model_id" else 200)
    assert (long.status_code, long.json()["field"]) == (422, field)


async def test_regions_have_limits_and_keep_their_words() -> None:
    async with client_of() as client:
        five = await client.post("/infer/lmm", json=body(prompt="<REGION_TO_OCR>", region=[1, 2, 3, 4, 5]))
        many = await client.post("/infer/lmm", json=body(prompt="<REGION_TO_OCR>", region=[1] * 17))
        wrong = await client.post("/infer/lmm", json=body(prompt="<REGION_TO_OCR>", region={"x": 1}))
        text = await client.post("/infer/lmm", json=body(prompt="<REGION_TO_OCR>", region="<loc_1>" * 19))
        good = await client.post("/infer/lmm", json=body(prompt="<REGION_TO_OCR>", region="<loc_1><loc_2><loc_300><loc_400>"))
    assert (five.status_code, five.json()["code"]) == (400, "invalid_region")
    for response in (many, wrong, text):
        assert (response.status_code, response.json()["field"]) == (422, "region"), response.text
        assert len(response.json()["detail"]) == 1
    assert good.status_code == 200


async def test_a_large_sensible_request_passes() -> None:
    """64 images and 16 prompts with commas in them are far from the limit."""
    engine = FakeEngine()
    prompts = [{"prompt": "<CAPTION_TO_PHRASE_GROUNDING>", "text": "a,b," * 100} for _ in range(16)]
    async with client_of(engine, max_requests=2000) as client:
        response = await client.post("/infer/lmm", json=body(prompt=None, prompts=prompts, image=[image_field()] * 64))
    assert response.status_code == 200
    assert len(engine.asked) == 64 * 16


def test_the_structure_is_counted_over_slices() -> None:
    with pytest.raises(ValueError, match="more than"):
        parse_object(b'{"a": [' + b"0," * MAX_STRUCTURE + b"0]}")
    assert parse_object(b'{"a": "' + b"," * (MAX_STRUCTURE - 10) + b'"}')["a"][:2] == ",,"


FORM = {"Content-Type": "multipart/form-data; boundary=x"}


def part(name: str, value: bytes, extra: str = "") -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + value + b"\r\n"


IMAGE = part("image", image_bytes(), '; filename="a.png"')
FORMS = {
    "many fields": part("a", b"b") * 200_000,
    "many prompts": part("prompts", b"<OD>") * 90 + IMAGE,
    "many files": part("image", b"", '; filename="a"') * 100_000,
    "a header of megabytes": b"--x\r\nA: " + b"a" * (19 * MB),
    "many headers": b"--x\r\n" + b"A: b\r\n" * (3 * MB),
    "a name of megabytes": part("a" * (18 * MB), b""),
    "a field of megabytes": part("model_id", b"x" * (18 * MB)),
    "a region of commas": part("region", b"1," * 100_000) + part("prompt", b"<REGION_TO_OCR>") + IMAGE,
    "a region of brackets": part("region", b"[" * 200_000) + part("prompt", b"<REGION_TO_OCR>") + IMAGE,
    "an id": part("id", b"x" * 200_000) + part("prompt", b"<OD>") + IMAGE,
    "almost boundaries": part("image", b"\r\n--" * (4 * MB), '; filename="a"'),
    "nothing but line ends": b"\r\n" * (9 * MB),
}


@pytest.mark.parametrize("name", FORMS)
async def test_costly_forms_are_refused_at_once_in_few_words(name: str) -> None:
    async with client_of() as client:
        call = client.post("/infer/lmm/florence-2-base", content=FORMS[name] + b"--x--\r\n", headers=FORM)
        response, stall = await stall_during(call)
    assert 400 <= response.status_code < 500
    assert stall < LONGEST_STALL_S
    assert len(response.content) < LARGEST_ERROR


async def test_large_files_of_a_form_stay_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    large = part("image", image_bytes((1200, 1200), "BMP"), '; filename="a.bmp"')
    async with client_of() as client:
        response = await client.post("/infer/lmm/florence-2-base", content=part("prompt", b"<OD>") + large + b"--x--\r\n", headers=FORM)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "query", [{"id": "x" * 9000}, {"region": "1," * 9000}, {"prompts": ["<OD>"] * 1000}, {"num_beams": "9" * 9000}, {"scores": "x" * 9000}]
)
async def test_fields_of_a_query_have_the_same_limits(query: dict[str, Any]) -> None:
    params = {"model_id": "florence-2-base", "prompt": "<REGION_TO_OCR>", **query}
    async with client_of() as client:
        response = await client.post("/infer/lmm", params=params, content=image_bytes(), headers={"Content-Type": "image/png"})
    assert 400 <= response.status_code < 500
    assert len(response.content) < LARGEST_ERROR


@pytest.mark.parametrize("path", ["/model/add", "/model/remove"])
async def test_bodies_of_the_other_routes_are_small(path: str) -> None:
    async with client_of(management_keys=KEY) as client:
        response = await client.post(path, content=b'{"model_id": "' + b"x" * MB + b'"}', params={"api_key": KEY})
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
