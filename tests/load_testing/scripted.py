"""A server that does what a test tells it, byte for byte: it waits, refuses, hangs, breaks connections off and sends what is no answer.

It runs in a thread with an event loop of its own, so that it does not delay the generator under test.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

ANSWER = {"response": {"<CAPTION>": "a cat"}, "time": 0.1}
INFO = {"name": "scripted", "version": "1"}
REGISTRY = {"models": [{"model_id": "tiny"}]}


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    number: int
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """One answer; ``body`` is JSON unless it is bytes.

    Attributes:
        delay_s: before the answer.
        pieces: of a stream of events instead of a body; numbers are pauses in seconds.
        breaks_off: the connection ends without an answer, or before the end of the pieces.
    """

    body: Any = field(default_factory=lambda: ANSWER)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    pieces: tuple[str | float, ...] | None = None
    breaks_off: bool = False


Behaviour = Callable[[Asked], Awaitable[Reply]]


@dataclass
class Scripted:
    """The server while it runs; ``asked`` are the questions so far, without those about the server itself."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)


def event(data: Any, kind: str | None = None) -> str:
    """One event."""
    name = f"event: {kind}\n" if kind else ""
    return f"{name}data: {data if isinstance(data, str) else json.dumps(data)}\n\n"


@contextmanager
def scripted(behave: Behaviour, pages: Mapping[str, Any] | None = None) -> Iterator[Scripted]:
    """A server that is stopped at the end.

    Args:
        behave: the reply to each question; requests whose path is one of ``pages`` are none.
        pages: JSON by path.
    """
    pages = {"/info": INFO, "/model/registry": REGISTRY} if pages is None else pages
    server, ready, end = Scripted(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        listening = await asyncio.start_server(
            lambda reader, writer: _serve(reader, writer, server, behave, pages), "127.0.0.1", 0, backlog=512
        )
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        ready.set()
        await end.wait()
        listening.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(10)
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Scripted, behave: Behaviour, pages: Mapping[str, Any]
) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        async for asked in _requests(reader, server):
            if asked.path in pages:
                reply = Reply(pages[asked.path])
            elif asked.body:
                server.asked.append(asked)
                reply = await behave(asked)
            else:
                reply = Reply({"detail": "not found"}, status=404)
            await asyncio.sleep(reply.delay_s)
            if not await _write(writer, reply):
                break
    writer.close()


async def _requests(reader: asyncio.StreamReader, server: Scripted) -> AsyncIterator[Asked]:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        yield Asked(len(server.asked), head[0].split()[1], headers, body)


async def _write(writer: asyncio.StreamWriter, reply: Reply) -> bool:
    """Write a reply; whether the connection goes on."""
    lines = [f"HTTP/1.1 {reply.status} X", *(f"{name}: {value}" for name, value in reply.headers.items())]
    if reply.pieces is not None:
        writer.write("\r\n".join([*lines, "content-type: text/event-stream", "connection: close", "", ""]).encode())
        for piece in reply.pieces:
            if isinstance(piece, str):
                writer.write(piece.encode())
                await writer.drain()
            else:
                await asyncio.sleep(piece)
        return False
    if reply.breaks_off:
        return False
    body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    writer.write("\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body)
    await writer.drain()
    return True
