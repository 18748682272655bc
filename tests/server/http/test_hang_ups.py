"""A client that hangs up frees what it holds wherever its request is then. Real sockets."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from fixtures.fake_engine import FakeEngine
from florence2.server.app import create_app
from florence2.server.http.process import _config
from florence2.server.http.state import ServerState
from florence2.server.inference import service
from florence2.server.inference.decoding import Decoders
from florence2.server.settings import Settings
from tests.server.fakes import body, image_bytes, image_field
from tests.server.inference.test_admission import until

pytestmark = pytest.mark.anyio

LARGE = image_field(image_bytes((600, 500), "BMP"))


@asynccontextmanager
async def listening(engine: FakeEngine | None = None, loader: Any = None) -> AsyncIterator[tuple[ServerState, int]]:
    """A server that listens, in this event loop."""
    app = create_app(Settings(port=0), engine=engine, loader=loader)
    server = uvicorn.Server(_config(app, app.state.server.settings))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield app.state.server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def hang_up(server: ServerState, port: int, content: dict[str, Any], arrived: Callable[[], bool], *, share: float = 1.0) -> None:
    """Send a request, or a part of it, close the connection once the request is where it should be, and wait until nothing is held."""
    data = json.dumps(content).encode()
    head = f"POST /infer/lmm HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + data[: int(share * len(data))])
    await until(arrived)
    assert server.admission.num_slots == 1
    writer.transport.abort()
    await until(lambda: server.admission.num_slots == 0)
    assert server.admission.num_bytes == 0


async def test_while_its_body_comes_in() -> None:
    async with listening(FakeEngine()) as (server, port):
        await hang_up(server, port, body(image=LARGE), lambda: server.admission.num_bytes > 100_000, share=0.5)


async def test_while_its_body_waits_for_a_thread() -> None:
    async with listening(FakeEngine()) as (server, port):
        may_go_on, has_begun = threading.Event(), threading.Barrier(3)
        for _ in range(2):
            server.body_threads._pool.submit(lambda: (has_begun.wait(10), may_go_on.wait(10)))
        await asyncio.to_thread(has_begun.wait, 10)
        try:
            await hang_up(server, port, body(image=LARGE), lambda: server.body_threads._pool._work_queue.qsize() == 1)
        finally:
            may_go_on.set()


async def test_while_its_model_is_loaded() -> None:
    may_go_on, has_begun = threading.Event(), threading.Event()

    def load(_: str) -> FakeEngine:
        has_begun.set()
        may_go_on.wait(10)
        return FakeEngine()

    async with listening(loader=load) as (server, port):
        try:
            await hang_up(server, port, body(), lambda: has_begun.is_set() and server.admission.num_slots == 1)
        finally:
            may_go_on.set()


async def test_while_its_image_waits_for_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[str] = []

    async def decode(*_: Any, **__: Any) -> None:
        waiting.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            waiting.append("ended")

    monkeypatch.setattr(service, "is_cheap", lambda _: False)
    monkeypatch.setattr(Decoders, "decode", decode)
    async with listening(FakeEngine()) as (server, port):
        await hang_up(server, port, body(), lambda: waiting == ["begun"])
        await until(lambda: waiting == ["begun", "ended"])


@pytest.mark.parametrize("stream", [False, True])
async def test_while_it_waits_in_the_engine(stream: bool) -> None:
    engine = FakeEngine()
    engine.hold = True
    async with listening(engine) as (server, port):
        await hang_up(server, port, body(stream=stream), lambda: len(engine.futures) == 1)
        await until(lambda: engine.futures[0].cancelled())
