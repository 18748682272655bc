from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from florence2.client import CallTimeout, ConnectionFailed, InferenceConfiguration, InferenceError, InvalidParameter
from florence2.client.connection import Awaiting, Blocking, Connection, OpenResponse, run_blocking
from florence2.client.http_clients import awaiting_client, blocking_client
from florence2.client.retries import exchange
from florence2.client.wire import Request, Response, redirected
from florence2.url_policy import FetchPolicy
from tests.client.stub import Reply, Stub

Run = Callable[[Callable[[Connection], Coroutine[Any, Any, Any]]], Any]

FAST = InferenceConfiguration(retry_wait_s=0.0)


def blocking(function: Callable[[Connection], Coroutine[Any, Any, Any]]) -> Any:
    with blocking_client() as http:
        return run_blocking(function(Blocking(http)))


def awaiting(function: Callable[[Connection], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        async with awaiting_client() as http:
            return await function(Awaiting(http))

    return asyncio.run(run())


both = pytest.mark.parametrize("run", [blocking, awaiting])


def get(stub: Stub, path: str = "/info", timeout_s: float | None = 5.0, **more: Any) -> Request:
    return Request("GET", stub.url + path, f"GET {path}", {"X-A": "b"}, timeout_s, 5.0, **more)


@both
def test_answers_come_with_status_headers_and_content(run: Run, stub: Stub) -> None:
    stub.replies = [Reply(418, {"a": 1}, {"X-Thing": "yes"})]
    response = run(lambda connection: connection.send(get(stub)))
    assert (response.status_code, response.headers["x-thing"], response.content) == (418, "yes", b'{"a": 1}')
    assert stub.last.headers["x-a"] == "b"


@both
def test_redirects_within_the_server_are_followed(run: Run, stub: Stub) -> None:
    stub.replies = [Reply(308, {}, {"location": "/there"}), Reply(307, {}, {"location": stub.url + "/and/there"}), Reply(200, {"a": 1})]
    request = replace(get(stub, "/x?api_key=K"), method="POST", content=b"body")
    assert run(lambda connection: exchange(connection, request, FAST)).status_code == 200
    assert [(one.method, one.path, one.body) for one in stub.received] == [
        ("POST", path, b"body") for path in ("/x?api_key=K", "/there?api_key=K", "/and/there?api_key=K")
    ]


@both
def test_redirects_elsewhere_and_in_circles_are_not(run: Run, stub: Stub) -> None:
    post = replace(get(stub), method="POST", content=b"body")
    other = stub.url.replace("127.0.0.1", "localhost")
    for status, location in ((307, f"{other}/there"), (308, "http://127.0.0.1:9/"), (302, "/there"), (303, "/there"), (307, "http://[")):
        stub.replies = [Reply(status, {}, {"location": location})]
        stub.received.clear()
        assert run(lambda connection: exchange(connection, post, FAST)).status_code == status
        assert len(stub.received) == 1
    stub.replies = [Reply(302, {}, {"location": "/again"})] * 10
    stub.received.clear()
    assert run(lambda connection: exchange(connection, get(stub), FAST)).status_code == 302
    assert len(stub.received) == 6


@pytest.mark.parametrize(
    ("there", "is_followed"),
    [
        ("https://h/x", True),
        ("https://h:443/x", True),
        ("https://h:9001/x", True),
        ("http://h:9001/x", True),
        ("//h:9001/x", True),
        ("https://h:8443/x", False),
        ("http://h/x", False),
        ("http://h.evil/x", False),
        ("http://h@evil/x", False),
        ("http://u:p@h:9001/x", False),
        ("ftp://h:9001/x", False),
    ],
)
def test_what_counts_as_the_same_server(there: str, is_followed: bool) -> None:
    request = Request("POST", "http://h:9001/y", "POST /y", {}, 1.0, 1.0)
    assert (redirected(request, Response(307, {"location": there}, b"")) is not None) is is_followed
    secure = replace(request, url="https://h/y")
    assert redirected(secure, Response(307, {"location": "http://h/y"}, b"")) is None


@both
def test_cookies_are_not_kept(run: Run, stub: Stub) -> None:
    stub.replies = [Reply(200, {}, {"set-cookie": "session=1; Path=/"})]

    async def twice(connection: Connection) -> None:
        for _ in range(2):
            await exchange(connection, get(stub), FAST)

    run(twice)
    assert ["cookie" in one.headers for one in stub.received] == [False, False]


@both
@pytest.mark.parametrize("status", [429, 503, 504, 0])
def test_what_passes_is_tried_again(run: Run, stub: Stub, status: int) -> None:
    stub.replies = [Reply(status, {}), Reply(status, {}), Reply(200, {"ok": True})]
    response = run(lambda connection: exchange(connection, get(stub), FAST))
    assert response.status_code == 200
    assert len(stub.received) == 3


@both
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422, 423, 500, 501, 502, 507])
def test_what_does_not_pass_is_not(run: Run, stub: Stub, status: int) -> None:
    stub.replies = [Reply(status, {})]
    assert run(lambda connection: exchange(connection, get(stub), FAST)).status_code == status
    assert len(stub.received) == 1


@both
def test_the_last_error_comes_back(run: Run, stub: Stub) -> None:
    stub.replies = [Reply(429, {"message": f"{place}"}) for place in range(3)]
    response = run(lambda connection: exchange(connection, get(stub), FAST))
    assert (response.status_code, response.content) == (429, b'{"message": "2"}')
    stub.replies = [Reply(0)] * 3
    with pytest.raises(ConnectionFailed, match="broke off"):
        run(lambda connection: exchange(connection, get(stub), FAST))
    stub.replies = [Reply(503, {})]
    assert run(lambda connection: exchange(connection, get(stub), InferenceConfiguration(max_retries=0))).status_code == 503


class Clock:
    """A connection on which no time passes: it answers from a list and notes each wait."""

    def __init__(self, *answers: Response | Exception) -> None:
        self.answers = list(answers)
        self.waits: list[float] = []

    async def send(self, request: Request) -> Response:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def stream(self, request: Request) -> Response | OpenResponse:
        raise NotImplementedError

    async def fetch(self, url: str, policy: FetchPolicy) -> bytes:
        raise NotImplementedError

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)

    async def work(self, function: Callable[[], Any]) -> Any:
        return function()

    async def gather(self, jobs: Any, limit: int) -> Any:
        raise NotImplementedError

    def merge(self, parts: Any, limit: int) -> Any:
        raise NotImplementedError


def waits_of(configuration: InferenceConfiguration, *answers: Response | Exception) -> list[float]:
    clock = Clock(*answers, Response(200, {}, b""))
    run_blocking(exchange(clock, Request("GET", "http://h", "GET /", {}, 1.0, 1.0), configuration))
    return clock.waits


def test_waits_double_with_jitter() -> None:
    configuration = InferenceConfiguration(max_retries=8, retry_wait_s=1.0)
    waits = waits_of(configuration, *[Response(503, {}, b"")] * 4, *[ConnectionFailed("no")] * 4)
    for place, seconds in enumerate(waits):
        longest = min(2.0**place, 30.0)
        assert longest / 2 <= seconds <= longest
    assert len({round(seconds / 2.0**place, 6) for place, seconds in enumerate(waits)}) > 1


def test_retry_after_is_honoured_and_bounded() -> None:
    (seconds,) = waits_of(InferenceConfiguration(), Response(503, {"retry-after": "7"}, b""))
    assert 7.0 <= seconds <= 7.7
    clock = Clock(Response(429, {"retry-after": "3600"}, b""))
    response = run_blocking(exchange(clock, Request("GET", "http://h", "GET /", {}, 1.0, 1.0), InferenceConfiguration()))
    assert (response.status_code, clock.waits) == (429, [])


@both
def test_waiting_takes_its_time(run: Run) -> None:
    started = time.monotonic()
    run(lambda connection: connection.wait(0.05))
    assert time.monotonic() - started >= 0.045


@both
def test_slow_answers_time_out_and_are_not_tried_again(run: Run, stub: Stub) -> None:
    stub.replies = [Reply(200, {}, delay_s=0.5)]
    with pytest.raises(CallTimeout, match=r"timeout_s"):
        run(lambda connection: exchange(connection, get(stub, timeout_s=0.05), FAST))
    assert len(stub.received) == 1


@both
def test_nobody_there(run: Run) -> None:
    request = Request("GET", "http://127.0.0.1:9/info?api_key=SECRET", "GET /info", {}, 1.0, 1.0)
    with pytest.raises(ConnectionFailed, match=r"http://127\.0\.0\.1:9.*running") as caught:
        run(lambda connection: exchange(connection, request, FAST))
    assert "SECRET" not in str(caught.value)


@both
def test_requests_that_cannot_be_sent(run: Run, stub: Stub) -> None:
    with pytest.raises(InvalidParameter, match="can't be sent"):
        run(lambda connection: connection.send(Request("GET", "http://host:port", "GET /", {}, 1.0, 1.0)))
    with pytest.raises(InvalidParameter, match="can't be sent"):
        run(lambda connection: connection.send(Request("GET", stub.url, "GET /", {"X": "a\nb"}, 1.0, 1.0)))


@pytest.mark.slow
@both
def test_gathering_keeps_order_and_limit(run: Run, stub: Stub) -> None:
    stub.respond = lambda received: Reply(200, {"path": received.path}, delay_s=0.05)

    async def gathered(connection: Connection, limit: int) -> list[bytes]:
        async def one(place: int) -> bytes:
            return (await connection.send(get(stub, f"/{place}"))).content

        return await connection.gather([lambda place=place: one(place) for place in range(8)], limit)

    for limit in (1, 3):
        stub.most_under_way = 0
        assert run(partial(gathered, limit=limit)) == [f'{{"path": "/{place}"}}'.encode() for place in range(8)]
        assert min(limit, 2) <= stub.most_under_way <= limit


@both
def test_the_first_error_stops_the_rest(run: Run) -> None:
    begun: list[int] = []

    async def gathered(connection: Connection) -> None:
        async def one(place: int) -> None:
            begun.append(place)
            if place == 2:
                raise InferenceError("third")
            await connection.wait(0.01)

        await connection.gather([lambda place=place: one(place) for place in range(40)], 2)

    with pytest.raises(InferenceError, match="third"):
        run(gathered)
    assert len(begun) < 10


def test_a_coroutine_that_needs_a_loop_is_refused() -> None:
    with pytest.raises(RuntimeError, match="event loop"):
        run_blocking(asyncio.sleep(0))


def test_waits_between_tries_do_not_hold_the_loop(stub: Stub) -> None:
    stub.replies = [Reply(503, {}, {"retry-after": "0.1"})]
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def run() -> None:
        ticking = asyncio.ensure_future(tick())
        async with awaiting_client() as http:
            await exchange(Awaiting(http), get(stub), FAST)
        ticking.cancel()

    asyncio.run(run())
    assert max(later - earlier for earlier, later in pairwise(ticks)) < 0.08
