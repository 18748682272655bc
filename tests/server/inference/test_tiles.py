"""Tiles in requests: passed on to the engine, counted as so many images, bounded, and refused by the name of their field."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx2
import pytest

from fixtures.fake_engine import FakeEngine
from florence2.server.inference.admission import Admission
from florence2.tiling.tiles import Tiles
from tests.server.fakes import body, client_of, image_bytes, image_field

pytestmark = pytest.mark.anyio

LARGE = (800, 600)


def asked(**fields: Any) -> dict[str, Any]:
    return body(image=image_field(image_bytes(LARGE)), **{"prompt": "<OD>", **fields})


def chat(**fields: Any) -> dict[str, Any]:
    url = "data:image/png;base64," + image_field(image_bytes(LARGE))["value"]
    parts = [{"type": "text", "text": "<OD>"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": "florence-2-base", "messages": [{"role": "user", "content": parts}], **fields}


def admission_of(client: httpx2.AsyncClient) -> Admission:
    return client.app.state.server.admission  # type: ignore[attr-defined]


async def slots_once_queued(client: httpx2.AsyncClient, engine: FakeEngine, path: str, message: dict[str, Any]) -> int:
    """How many places a request takes once the engine has it. Then its client leaves: places and futures have to be given up."""
    posting = asyncio.ensure_future(client.post(path, json=message))
    deadline = time.monotonic() + 10
    while not engine.futures:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    taken = admission_of(client).num_slots
    posting.cancel()
    await asyncio.wait({posting})
    while admission_of(client).num_slots or not all(future.cancelled() for future in engine.futures):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    return taken


@pytest.mark.parametrize(("path", "message"), [("/infer/lmm", asked), ("/v1/chat/completions", chat)])
async def test_tiles_reach_the_engine(path: str, message: Any) -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        for fields, tiles in (
            ({"tiles": "2x2"}, Tiles("2x2")),
            ({"tiles": 640, "tile_overlap": 0, "tiles_only": True}, Tiles(640, 0, includes_whole=False)),
            ({"tiles": None}, None),
        ):
            response = await client.post(path, json=message(**fields))
            assert response.status_code == 200, response.text
            assert engine.asked[-1].get("tiles") == tiles


async def test_tiles_in_a_form() -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        data = {"prompt": "<OD>", "tiles": "400", "tile_overlap": "0.1", "tiles_only": "true"}
        response = await client.post("/infer/lmm/florence-2-base", files={"image": ("a.png", image_bytes(LARGE))}, data=data)
    assert response.status_code == 200
    assert engine.asked[-1]["tiles"] == Tiles(400, 0.1, includes_whole=False)


@pytest.mark.parametrize(
    ("path", "message", "num_slots"),
    [
        ("/infer/lmm", asked(tiles="2x2", num_beams=3), 5 * 3),
        ("/infer/lmm", asked(tiles="2x2", tiles_only=True, num_beams=1), 4),
        ("/infer/lmm", asked(prompt=None, prompts=["<OD>", "<OCR>"], tiles="2x1", num_beams=1), 3 * 2),
        ("/infer/lmm", asked(tiles=400, tile_overlap=0, num_beams=1), 5),
        ("/infer/lmm", asked(tiles=800, num_beams=2), 2),
        ("/v1/chat/completions", chat(tiles="2x2", num_beams=2), 10),
    ],
)
async def test_each_tile_takes_a_place_until_its_client_leaves(path: str, message: dict[str, Any], num_slots: int) -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine) as client:
        assert await slots_once_queued(client, engine, path, message) == num_slots


async def test_without_room_for_its_tiles_a_request_is_told_to_come_again() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine, max_requests=6) as client:
        other = asyncio.ensure_future(client.post("/infer/lmm", json=asked(num_beams=2)))
        while not engine.futures:
            await asyncio.sleep(0.005)
        refused = await client.post("/infer/lmm", json=asked(tiles="2x2", num_beams=1))
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert "retry-after" in refused.headers
        assert len(engine.futures) == 1
        assert admission_of(client).num_slots == 2
        engine.release()
        assert (await other).status_code == 200
        assert (await client.post("/infer/lmm", json=asked(tiles="2x2", num_beams=3))).status_code == 200  # alone it passes


@pytest.mark.parametrize(
    ("fields", "status", "field", "said"),
    [
        ({"tiles": "many"}, 400, "tiles", "tiles must be a grid"),
        ({"tiles": 3}, 400, "tiles", "tiles must be a grid"),
        ({"tiles": "5x5"}, 400, "tiles", "at most 16 tiles are taken here; a grid of 5x5 has 25"),
        ({"tiles": 100}, 413, "tiles", "a picture of 800 x 600 pixels has 80 tiles of 100 pixels"),
        ({"tiles": 200}, 413, "tiles", "has 20 tiles of 200 pixels, and at most 16 are taken here: send a side of 232 or more"),
        ({"tiles": "2x2", "tile_overlap": 0.9}, 400, "tile_overlap", "from 0 to 0.5"),
        ({"tile_overlap": 0.1}, 400, "tile_overlap", "give tiles, too"),
        ({"tiles_only": True}, 400, "tiles_only", "give tiles, too"),
        ({"tiles": "2x2", "stream": True}, 400, "tiles", "can't be streamed"),
    ],
)
async def test_wrong_tiles_are_refused_by_their_field(fields: dict[str, Any], status: int, field: str, said: str) -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        refused = await client.post("/infer/lmm", json=asked(**fields))
        in_chat = await client.post("/v1/chat/completions", json=chat(**fields))
    assert (refused.status_code, refused.json()["field"]) == (status, field), refused.text
    assert said in refused.json()["message"]
    assert (in_chat.status_code, in_chat.json()["error"]["param"]) == (status, field), in_chat.text
    assert not engine.asked


async def test_tiles_with_what_they_do_not_go_with() -> None:
    async with client_of() as client:
        several = await client.post("/infer/lmm", json=asked(prompt=None, prompts=["<OD>", "<CAPTION>"], tiles="2x2"))
        chances = await client.post("/v1/chat/completions", json=chat(tiles="2x2", logprobs=True))
    assert several.json()["field"] == "tiles"
    assert several.json()["message"].startswith("prompts[1]: tiles do not go with <CAPTION>")
    assert chances.json()["error"]["param"] == "logprobs"


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        *(({"tiles": wrong}, "tiles", 'a grid of columns x rows such as "2x2", or the side of') for wrong in (True, 2.5, [2, 2], {})),
        *(({"tiles": "2x2", "tile_overlap": wrong}, "tile_overlap", "a valid number") for wrong in (True, False, [0.2])),
    ],
)
async def test_tiles_of_a_wrong_type_are_told_what_they_should_be(fields: dict[str, Any], field: str, said: str) -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        refused = await client.post("/infer/lmm", json=asked(**fields))
        in_chat = await client.post("/v1/chat/completions", json=chat(**fields))
    assert (refused.status_code, refused.json()["field"]) == (422, field), refused.text
    assert said in refused.json()["message"]
    assert (in_chat.status_code, in_chat.json()["error"]["param"]) == (400, field), in_chat.text
    assert said in in_chat.json()["error"]["message"]
    assert not engine.asked


async def test_a_picture_with_too_many_tiles_leaves_the_others_alone() -> None:
    images = [image_field(image_bytes((300, 300))), image_field(image_bytes(LARGE))]
    async with client_of() as client:
        answer = await client.post("/infer/lmm", json=body(image=images, prompt="<OD>", tiles=200, on_error="item"))
    good, bad = answer.json()
    assert "response" in good
    assert (bad["error"]["status"], bad["error"]["field"]) == (413, "image[1]")
