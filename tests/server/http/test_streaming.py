"""A request holds what it was admitted with until the last byte of its response is sent, whatever becomes of it."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from fixtures.fake_engine import FakeEngine
from florence2.server import app as application
from florence2.server.http.middleware import RequestMiddleware
from florence2.server.http.state import ServerState, hold
from florence2.server.settings import Settings
from tests.server import slow_api
from tests.server.fakes import body, client_of
from tests.server.process import Server, start_server

pytestmark = pytest.mark.anyio
PRELUDE = "from tests.server import slow_api\nslow_api.add()"


@pytest.fixture(autouse=True)
def second_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "APIS", (*application.APIS, slow_api.API))
    monkeypatch.setattr(slow_api, "ended", [])


async def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


class Caller:
    """A client that is called by an application without a socket, and takes the response as slowly as it likes.

    Attributes:
        messages: what was sent to it.
        may_take: while it is clear, nothing more is taken.
        has_left: set once it closes the connection.
    """

    def __init__(self, content: bytes = b"", headers: dict[bytes, bytes] | None = None) -> None:
        self.messages: list[Any] = []
        self.may_take, self.has_left = asyncio.Event(), asyncio.Event()
        self.may_take.set()
        self._unsent = [content]
        self._headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), *(headers or {}).items()]

    async def call(self, app: Any, path: str, query: bytes = b"") -> None:
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": query, "headers": self._headers}
        scope |= {"asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "server": ("localhost", 80), "root_path": ""}
        await app(scope, self.receive, self.send)

    async def receive(self) -> dict[str, Any]:
        if self._unsent:
            return {"type": "http.request", "body": self._unsent.pop(), "more_body": False}
        await self.has_left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.may_take.wait()
        self.messages.append(message)

    @property
    def status(self) -> int:
        return self.messages[0]["status"]

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def is_whole(self) -> bool:
        return self.messages[-1]["type"] == "http.response.body" and not self.messages[-1].get("more_body", False)


def server_of(client: httpx2.AsyncClient) -> ServerState:
    return client.app.state.server  # type: ignore[attr-defined]


def app_of(client: httpx2.AsyncClient) -> Any:
    return client.app  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "content", "num_slots", "status"),
    [
        ("/slow/stream/3", b"", slow_api.SLOTS, 200),
        ("/infer/lmm", json.dumps(body()).encode(), 1, 200),
        ("/infer/lmm", json.dumps(body(prompt="<FOO>")).encode(), 1, 400),
        ("/slow/mistake", b"", 1, 400),
    ],
)
async def test_slots_are_held_until_the_last_byte_is_sent(path: str, content: bytes, num_slots: int, status: int) -> None:
    async with client_of() as client:
        admission, caller = server_of(client).admission, Caller(content)
        caller.may_take.clear()
        call = asyncio.create_task(caller.call(app_of(client), path))
        await until(lambda: admission.num_slots == num_slots)
        await asyncio.sleep(0.1)
        assert not call.done()
        assert admission.num_slots == num_slots
        caller.may_take.set()
        await call
        assert admission.num_slots == 0
    assert (caller.status, caller.is_whole) == (status, True)


async def test_limits_count_a_response_that_is_being_sent() -> None:
    async with client_of(max_requests=slow_api.SLOTS) as client:
        caller = Caller()
        call = asyncio.create_task(caller.call(app_of(client), "/slow/stream/90"))
        await until(lambda: len(caller.messages) > 2)
        refused = await client.post("/infer/lmm", json=body())
        assert "florence2_requests_under_way 5.0" in (await client.get("/metrics")).text
        await call
        assert (await client.post("/infer/lmm", json=body())).status_code == 200
    assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
    assert caller.body.endswith(b"data: 89\n\n")
    assert slow_api.ended == ["whole"]


async def test_draining_lets_a_response_come_to_its_end() -> None:
    async with client_of() as client:
        caller = Caller()
        call = asyncio.create_task(caller.call(app_of(client), "/slow/stream/20"))
        await until(lambda: len(caller.messages) > 2)
        server_of(client).admission.is_draining = True
        refused = await client.post("/slow/stream/3")
        await call
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert caller.is_whole
    assert slow_api.ended == ["whole"]


@pytest.mark.parametrize("is_reading", [True, False])
async def test_a_client_that_leaves_ends_the_body(is_reading: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Whether the generator waits for its next part or for the client to take the last one."""
    caplog.set_level(logging.INFO, logger="florence2.access")
    async with client_of() as client:
        caller = Caller()
        pause = b"pause_s=60" if is_reading else b"pause_s=0.001"
        call = asyncio.create_task(caller.call(app_of(client), "/slow/stream/90", pause))
        await until(lambda: len(caller.messages) == 2)
        if not is_reading:
            caller.may_take.clear()
            await asyncio.sleep(0.05)
        caller.has_left.set()
        await asyncio.wait_for(call, 5)
        assert server_of(client).admission.num_slots == 0
    assert slow_api.ended == ["CancelledError" if is_reading else "GeneratorExit"]
    (line,) = [record for record in caplog.records if record.name == "florence2.access"]
    assert (line.fields["status"], line.fields["code"]) == (200, "client_left")  # type: ignore[attr-defined]


async def test_a_client_that_leaves_frees_the_engine() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine) as client:
        caller = Caller()
        call = asyncio.create_task(caller.call(app_of(client), "/slow/infer"))
        await until(lambda: len(caller.messages) == 2)
        assert not engine.futures[0].cancelled()
        caller.has_left.set()
        await asyncio.wait_for(call, 5)
        assert engine.futures[0].cancelled()
        assert server_of(client).admission.num_slots == 0


async def test_a_server_that_ends_closes_the_body() -> None:
    async with client_of() as client:
        caller = Caller()
        call = asyncio.create_task(caller.call(app_of(client), "/slow/stream/90", b"pause_s=60"))
        await until(lambda: len(caller.messages) == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert server_of(client).admission.num_slots == 0
    assert slow_api.ended == ["CancelledError"]


async def test_a_body_that_fails_in_the_middle_gives_its_slots_back() -> None:
    async with client_of() as client:
        caller = Caller()
        with pytest.raises(RuntimeError, match="broken in the middle"):
            await caller.call(app_of(client), "/slow/stream/200", b"pause_s=0")
        assert server_of(client).admission.num_slots == 0
    assert caller.status == 200
    assert not caller.is_whole  # so that the connection is cut, and nobody takes it for the whole


async def test_what_any_asgi_application_holds_is_given_back_at_the_end() -> None:
    async with client_of() as client:
        server, caller = server_of(client), Caller()

        async def bare(scope: Any, receive: Any, send: Any) -> None:
            hold(scope, server.admission.enter("")).grow(3)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for number in range(3):
                await send({"type": "http.response.body", "body": b"%d" % number, "more_body": number < 2})

        wrapped = RequestMiddleware(bare, Settings(), (), server.metrics, server.admission)
        caller.may_take.clear()
        call = asyncio.create_task(caller.call(wrapped, "/bare"))
        await until(lambda: server.admission.num_slots == 3)
        caller.may_take.set()
        await call
        assert server.admission.num_slots == 0
    assert caller.body == b"012"


async def test_each_api_words_its_own_errors() -> None:
    async with client_of(api_keys="a-long-key") as client:
        key = {"Authorization": "Bearer a-long-key"}
        mistake = await client.post("/slow/mistake", headers=key)
        keyless = await client.post("/slow/mistake")
        method = await client.get("/slow/mistake", headers=key)
        wrong = await client.post("/slow/stream/many", headers=key)
        nowhere = await client.get("/slowly", headers=key)
        others = await client.post("/infer/lmm", json=body(prompt="<FOO>", api_key="a-long-key"))
        in_body = await client.post("/slow/mistake", json={"api_key": "a-long-key"})
        known = await client.post("/infer/lmm", json=body(model_id="slow-base"), headers=key)
    assert mistake.json() == {"error": {"message": "no prompt is right here", "type": "invalid_prompt", "param": "messages"}}
    assert (mistake.status_code, keyless.status_code, method.status_code, wrong.status_code) == (400, 401, 405, 422)
    assert [answer.json()["error"]["type"] for answer in (keyless, method, wrong)] == [
        "unauthorized",
        "method_not_allowed",
        "validation_failed",
    ]
    assert keyless.headers["www-authenticate"] == "Bearer"
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "not_found")
    assert others.json()["code"] == "unknown_task"
    assert in_body.status_code == 401  # this API's bodies hold no key
    assert known.headers["x-model-id"] == "florence-2-base"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = start_server(engine_process=False, prelude=PRELUDE, max_requests=slow_api.SLOTS)
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log


def connect(server: Server, path: str) -> socket.socket:
    """A connection on which the first part of a streamed body has come."""
    url = httpx2.URL(server.url)
    connection = socket.create_connection((url.host, url.port or 80), timeout=20)
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    received = b""
    while b"data: 0" not in received:
        received += connection.recv(2**12)
    assert received.startswith(b"HTTP/1.1 200")
    return connection


def test_a_client_that_leaves_a_real_server(server: Server) -> None:
    with connect(server, "/slow/stream/90?pause_s=30"):
        assert httpx2.post(f"{server.url}/infer/lmm", json=body(), timeout=30).status_code == 429
        assert "florence2_requests_under_way 5.0" in httpx2.get(f"{server.url}/metrics").text
    server.wait_for("the body has ended: CancelledError", 10)
    server.wait_for("path=/slow/stream/90 status=200 .*code=client_left", 10)
    assert "florence2_requests_under_way 0.0" in httpx2.get(f"{server.url}/metrics").text
    assert httpx2.post(f"{server.url}/infer/lmm", json=body(), timeout=30).status_code == 200


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")
@pytest.mark.parametrize(("pause_s", "how"), [(0.2, "whole"), (60, "CancelledError")])
def test_a_real_server_that_drains(pause_s: float, how: str) -> None:
    server = start_server(engine_process=False, prelude=PRELUDE, drain_timeout_s=6)
    try:
        with connect(server, f"/slow/stream/10?pause_s={pause_s}") as connection:
            server.process.send_signal(signal.SIGTERM)
            received = b""
            while part := connection.recv(2**12):
                received += part
        assert (b"data: 9" in received) == (how == "whole")
        assert server.wait() == 0
        assert f"the body has ended: {how}" in server.log
    finally:
        server.stop()
