"""Costly pictures are decoded in a process that can be ended; nothing else waits for them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from fixtures.fake_engine import FakeEngine
from florence2.image_files import Structure, inspect
from florence2.images import read_image
from florence2.server.inference import decoding
from florence2.server.inference.decoding import Decoders, is_cheap
from florence2.server.settings import Settings
from tests.images.test_files import encoded, many_scans, photo
from tests.server.fakes import body, client_of
from tests.server.process import start_server

pytestmark = pytest.mark.anyio


def structure_of(data: bytes) -> Structure:
    structure = inspect(data)
    assert structure is not None
    return structure


def field(data: bytes) -> dict[str, Any]:
    return {"type": "base64", "value": base64.b64encode(data).decode()}


@pytest.fixture
def decoders():
    made: list[Decoders] = []

    def make(**settings: Any) -> Decoders:
        made.append(Decoders(Settings(**settings)))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one._pool.shutdown()


async def test_pixels_are_those_of_the_own_process(decoders) -> None:
    pool = decoders()
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [encoded(photo(900, 700), kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")]
    files += [encoded(photo(), "GIF"), encoded(photo(), "BMP"), encoded(photo().convert("RGBA"), "WEBP")]
    for data in files:
        for auto_orient in (True, False):
            picture = await pool.decode(structure_of(data), auto_orient=auto_orient)
            assert np.array_equal(np.asarray(picture), np.asarray(read_image(data, auto_orient=auto_orient)))
    assert len(pool._all) == 1  # one process after another is the same


@pytest.mark.slow
def test_small_plain_pictures_stay_in_the_process() -> None:
    for data in (encoded(photo(640, 480), "JPEG"), encoded(photo(4000, 3000), "JPEG"), encoded(photo(1920, 1080), "PNG")):
        assert is_cheap(structure_of(data))
    for kind in ("WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        assert not is_cheap(structure_of(encoded(photo(), kind)))
    assert not is_cheap(structure_of(encoded(photo(4000, 3000), "JPEG", progressive=True)))
    assert not is_cheap(structure_of(encoded(photo().convert("CMYK"), "JPEG")))


@pytest.mark.slow
async def test_what_takes_too_long_is_ended_and_the_next_is_read(decoders) -> None:
    pool = decoders(image_decode_s=1, image_processes=1)
    jpeg = many_scans(encoded(Image.new("RGB", (5000, 4000)), "JPEG", progressive=True), 2000)
    endless = Structure("JPEG", jpeg, (5000, 4000))  # as if its scans had not been counted
    began = time.perf_counter()
    with pytest.raises(Exception, match="takes more than 1 s to decode") as caught:
        await pool.decode(endless, auto_orient=True)
    assert getattr(caught.value, "code", None) == "image_too_large"
    assert time.perf_counter() - began < 15
    assert (await pool.decode(structure_of(encoded(photo(), "GIF")), auto_orient=True)).size == (96, 64)


async def test_who_leaves_ends_the_decoding(decoders) -> None:
    pool = decoders(image_processes=1)
    jpeg = many_scans(encoded(Image.new("RGB", (5000, 4000)), "JPEG", progressive=True), 2000)
    work = asyncio.create_task(pool.decode(Structure("JPEG", jpeg, (5000, 4000)), auto_orient=True))
    while not pool._all:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    (process,) = pool._all
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    began = time.perf_counter()
    assert (await pool.decode(structure_of(encoded(photo(), "GIF")), auto_orient=True)).size == (96, 64)
    assert time.perf_counter() - began < 5
    assert not process.is_alive


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limits on memory there")
async def test_memory_is_bounded_and_told(decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BYTES_PER_PIXEL", 1)
    pool = decoders(max_image_pixels=100_000_000)
    large = structure_of(encoded(Image.new("RGB", (10_000, 10_000)), "PNG"))
    monkeypatch.setattr(decoding, "BASE_BYTES", 400 * 2**20)
    with pytest.raises(Exception, match="not enough memory to decode") as caught:
        await pool.decode(large, auto_orient=True)
    assert getattr(caught.value, "status", None) == 503
    monkeypatch.undo()


@pytest.mark.slow
async def test_the_largest_allowed_picture_of_each_kind_fits(decoders) -> None:
    pool = decoders(max_image_pixels=4_000_000)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 4), dtype=np.uint8)).resize((2000, 2000))
    grey = Image.fromarray(np.zeros((2000, 2000), np.uint16))
    for data in (
        encoded(picture, "PNG", compress_level=1),
        encoded(picture, "WEBP", quality=50, method=0),
        encoded(grey, "PNG", compress_level=1),
        encoded(grey.convert("F"), "TIFF"),
        encoded(picture.convert("CMYK"), "JPEG"),
        encoded(picture.convert("RGB"), "AVIF", speed=10),
    ):
        assert (await pool.decode(structure_of(data), auto_orient=True)).size == (2000, 2000)


async def test_damage_and_size_are_told_as_ever(decoders) -> None:
    pool = decoders(max_image_pixels=1000)
    webp = encoded(photo(), "WEBP")
    with pytest.raises(Exception, match="damaged or incomplete"):
        await decoders().decode(structure_of(webp[:-200]), auto_orient=True)
    with pytest.raises(Exception, match=r"96 x 64 = 6144") as caught:
        await pool.decode(structure_of(encoded(photo(), "AVIF")), auto_orient=True)
    assert getattr(caught.value, "code", None) == "image_too_large"


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
async def test_a_process_that_dies_is_replaced(decoders) -> None:
    pool = decoders(image_processes=1)
    gif = structure_of(encoded(photo(), "GIF"))
    await pool.decode(gif, auto_orient=True)
    (process,) = pool._all
    os.kill(process._process.pid, signal.SIGSEGV)
    process.wait()
    assert (await pool.decode(gif, auto_orient=True)).size == (96, 64)
    assert process not in pool._all


async def test_a_process_that_was_idle_is_ended_and_the_next_one_is_new(decoders) -> None:
    small = decoders()
    picture = structure_of(encoded(photo(), "PNG"))
    await small.decode(picture, auto_orient=True)
    (process,) = small._all
    small.end_idle(idle_s=60)
    assert process.is_alive
    small.end_idle(idle_s=0)
    assert not process.is_alive
    assert not small._all
    assert (await small.decode(picture, auto_orient=True)).size == photo().size


async def test_the_process_knows_no_secret(decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLORENCE2_API_KEYS", "a-secret-key-of-the-server")
    pool = decoders()
    await pool.decode(structure_of(encoded(photo(), "GIF")), auto_orient=True)
    (process,) = pool._all
    if os.path.exists("/proc/self/environ"):
        with open(f"/proc/{process._process.pid}/environ", "rb") as file:
            assert b"a-secret" not in file.read()
        with open(f"/proc/{process._process.pid}/maps", "rb") as file:
            assert b"torch" not in file.read()


async def test_requests_with_every_format() -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
            response = await client.post("/infer/lmm", json=body(image=field(encoded(photo(), kind))))
            assert (response.status_code, response.json()["image"]) == (200, {"width": 96, "height": 64})
        several = [field(encoded(photo(), kind)) for kind in ("WEBP", "PNG", "AVIF")]
        assert [item["image"]["width"] for item in (await client.post("/infer/lmm", json=body(image=several))).json()] == [96] * 3
        scans = many_scans(encoded(photo(), "JPEG", progressive=True), 3000)
        response = await client.post("/infer/lmm", json=body(image=field(scans)))
        assert (response.status_code, response.json()["code"]) == (400, "invalid_image")
        assert "scans" in response.json()["message"]
        assert response.json()["message"].startswith("Could not load input image. Cause: ")
    assert {picture.mode for picture in engine.pictures} == {"RGB"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")
def test_slow_pictures_hold_neither_health_nor_the_end() -> None:
    server = start_server(image_decode_s=60, drain_timeout_s=1, max_body_bytes=2**26)
    try:
        slow = many_scans(encoded(photo(4000, 3000), "JPEG", progressive=True), 3)  # seconds of work
        content = {"model_id": "florence-2-base", "prompt": "<OD>", "image": field(slow)}
        with httpx2.Client(base_url=server.url, timeout=60) as client:

            def ask() -> None:
                with contextlib.suppress(httpx2.HTTPError):
                    httpx2.post(f"{server.url}/infer/lmm", json=content, timeout=60)

            began = time.monotonic()
            ask()
            alone = time.monotonic() - began
            threads = [threading.Thread(target=ask, daemon=True) for _ in range(8)]
            for thread in threads:
                thread.start()
            longest, until = 0.0, time.monotonic() + 3
            while time.monotonic() < until:
                began = time.monotonic()
                assert client.get("/healthz").status_code == 200
                longest = max(longest, time.monotonic() - began)
            assert longest < max(1.5, 3 * alone)  # a server that decodes pictures between its answers would take eight times as long
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 15
    finally:
        server.process.kill()
        server.process.wait()
