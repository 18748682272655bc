"""Answers that are read while they come in, from a real server that is slow, breaks off, is busy, and sees its client leave."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import Any

import pytest

from florence2.client import CallError, CallTimeout, ConnectionFailed, HTTPClientMode, InferenceConfiguration
from florence2.client.connection import Awaiting, Blocking, Connection, OpenResponse, iterate_blocking
from florence2.client.events import EventDecoder, ServerSentEvent, stream_events
from florence2.client.http_clients import awaiting_client, blocking_client
from florence2.client.wire import Request, Response, Target
from tests.client.stub import Reply, Stub

FAST = InferenceConfiguration(retry_wait_s=0.0)
TEXT, DONE = ServerSentEvent("text", "a dog"), ServerSentEvent("done", '{"response": 1}')
BODY = b': keep-alive\n\nevent: text\ndata: a dog\n\nevent: done\ndata: {"response": 1}\n\n'

Make = Callable[[Connection], AsyncGenerator[Any, None]]
Take = Callable[[Make, "int | None"], list[Any]]


def blocking(make: Make, most: int | None = None) -> list[Any]:
    """The first events that a generator yields, which is left then."""
    with blocking_client() as http:
        events = iterate_blocking(make(Blocking(http)))
        assert isinstance(events, Iterator)
        taken = list(itertools.islice(events, most))
        events.close()  # type: ignore[attr-defined]
        return taken


def awaiting(make: Make, most: int | None = None) -> list[Any]:
    async def run() -> list[Any]:
        taken: list[Any] = []
        async with awaiting_client() as http:
            events = make(Awaiting(http))
            while most is None or len(taken) < most:
                try:
                    taken.append(await anext(events))
                except StopAsyncIteration:
                    break
            await events.aclose()
        return taken

    return asyncio.run(run())


both = pytest.mark.parametrize("take", [blocking, awaiting])


def events_of(stub: Stub, timeout_s: float = 5.0, configuration: InferenceConfiguration = FAST) -> Make:
    target = Target(stub.url, None, HTTPClientMode.V1, configuration)
    request = Request("POST", stub.url + "/infer/lmm", "POST /infer/lmm", {}, timeout_s, 5.0, b"{}")
    return lambda connection: stream_events(connection, target, request, lambda event, head: None)


@both
def test_events_come_while_the_answer_is_under_way(take: Take, stub: Stub) -> None:
    arrived = threading.Event()

    def pieces() -> Iterator[bytes | float]:
        yield BODY[:45]
        assert arrived.wait(10)
        yield BODY[45:]

    async def noting(connection: Connection) -> AsyncGenerator[Any, None]:
        async for event in events_of(stub)(connection):
            arrived.set()
            yield event

    stub.replies = [Reply(pieces=pieces())]
    assert take(noting, None) == [TEXT, DONE]


@both
@pytest.mark.parametrize("cut", [1, 2, 7])
def test_events_in_pieces_of_any_size(take: Take, stub: Stub, cut: int) -> None:
    stub.replies = [Reply(pieces=[BODY[start : start + cut] for start in range(0, len(BODY), cut)])]
    assert take(events_of(stub), None) == [TEXT, DONE]


@both
def test_what_passes_is_tried_again_before_the_first_byte(take: Take, stub: Stub) -> None:
    elsewhere = Reply(307, {}, {"location": "/there"})
    stub.replies = [Reply(503, {}), Reply(0), elsewhere, Reply(pieces=[BODY])]
    assert take(events_of(stub), None) == [TEXT, DONE]
    assert [one.path for one in stub.received] == ["/infer/lmm"] * 3 + ["/there"]


@both
def test_an_answer_that_breaks_off_is_not_tried_again(take: Take, stub: Stub) -> None:
    taken: list[Any] = []

    async def noting(connection: Connection) -> AsyncGenerator[Any, None]:
        async for event in events_of(stub)(connection):
            taken.append(event)
            yield event

    stub.replies = [Reply(pieces=[BODY[:45]], breaks_off=True)]
    with pytest.raises(ConnectionFailed, match="broke off"):
        take(noting, None)
    assert (taken, len(stub.received)) == ([TEXT], 1)


@both
def test_errors_before_the_first_event(take: Take, stub: Stub) -> None:
    for status, tries in ((400, 1), (503, 3)):
        stub.received.clear()
        stub.replies = [Reply(status, {"message": "no", "code": "some_code"})] * tries
        with pytest.raises(CallError, match="no") as caught:
            take(events_of(stub), None)
        assert (caught.value.status_code, caught.value.code, len(stub.received)) == (status, "some_code", tries)


@both
def test_silence_between_pieces_times_out_and_comments_do_not(take: Take, stub: Stub) -> None:
    stub.replies = [Reply(pieces=[*[b": keep-alive\n\n", 0.1] * 5, BODY])]
    assert take(events_of(stub, timeout_s=0.3), None) == [TEXT, DONE]
    stub.received.clear()
    stub.replies = [Reply(pieces=[BODY[:45], 1.0, BODY[45:]])]
    with pytest.raises(CallTimeout, match="timeout_s"):
        take(events_of(stub, timeout_s=0.3), None)
    assert len(stub.received) == 1


def endless() -> Iterable[bytes | float]:
    while True:
        yield b"event: text\ndata: a dog\n\n"
        yield 0.01


@both
def test_the_server_sees_a_client_leave(take: Take, stub: Stub) -> None:
    stub.replies = [Reply(pieces=endless())]
    assert take(events_of(stub), 2) == [TEXT, TEXT]
    assert stub.left.wait(10)


def test_the_server_sees_a_task_that_is_cancelled(stub: Stub) -> None:
    async def run() -> None:
        async with awaiting_client() as http:

            async def read() -> None:
                async for _ in events_of(stub)(Awaiting(http)):
                    pass

            task = asyncio.ensure_future(read())
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(stub.left.wait, 10)

    stub.replies = [Reply(pieces=endless())]
    asyncio.run(run())


def test_a_response_that_nobody_reads_is_closed(stub: Stub) -> None:
    async def unread(connection: Connection) -> AsyncGenerator[Any, None]:
        request = Request("GET", stub.url, "GET /", {}, 5.0, 5.0)
        response = await connection.stream(request)
        assert isinstance(response, OpenResponse)
        await response.close()
        yield response.status_code

    for take in (blocking, awaiting):
        stub.left.clear()
        stub.replies = [Reply(pieces=endless())]
        assert take(unread, None) == [200]
        assert stub.left.wait(10)


def test_streams_do_not_hold_the_loop(stub: Stub) -> None:
    async def run() -> list[float]:
        ticks: list[float] = []

        async def tick() -> None:
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.01)

        ticking = asyncio.ensure_future(tick())
        async with awaiting_client() as http:
            async for _ in events_of(stub)(Awaiting(http)):
                pass
        ticking.cancel()
        return ticks

    stub.replies = [Reply(pieces=[BODY[:45], 0.5, BODY[45:]])]
    assert len(asyncio.run(run())) > 5


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: a\n\n", [("message", "a")]),
        (b"data:a\ndata: b\ndata\n\n", [("message", "a\nb\n")]),
        (b"event: x\r\ndata: a\r\n\r\n", [("x", "a")]),
        (b"event: x\rdata: a\r\rdata: b\r\r", [("x", "a"), ("message", "b")]),
        (b"\xef\xbb\xbfdata: \xe9\xa2\xa8\n\n", [("message", "風")]),
        ("data: a\u2028b\x85c\n\n".encode(), [("message", "a\u2028b\x85c")]),
        (b"event: x\n\ndata: a\n\n", [("message", "a")]),
        (b"id: 1\nretry: 5\n: comment\ndata:  a\n\n", [("message", " a")]),
        (b"data: a\n", []),
        (b"", []),
    ],
)
def test_what_is_an_event(body: bytes, events: list[tuple[str, str]]) -> None:
    wanted = [ServerSentEvent(*event) for event in events]
    for size in (1, 2, 3, len(body) or 1):
        decoder = EventDecoder()
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        assert [event for piece in pieces for event in decoder.decode(piece)] == wanted


def test_every_other_answer_is_whole(stub: Stub) -> None:
    async def answer(connection: Connection) -> AsyncGenerator[Any, None]:
        yield await connection.stream(Request("GET", stub.url, "GET /", {}, 5.0, 5.0))

    for take in (blocking, awaiting):
        stub.replies = [Reply(404, {"a": 1})]
        (response,) = take(answer, None)
        assert isinstance(response, Response)
        assert (response.status_code, response.content) == (404, b'{"a": 1}')
