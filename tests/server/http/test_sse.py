"""Server-sent events: how they are written, and comments between them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from florence2.errors import OutOfMemory
from florence2.server.http.sse import KEEP_ALIVE, encode_event, with_comments

pytestmark = pytest.mark.anyio


def test_an_event_has_a_kind_data_and_an_end() -> None:
    assert encode_event('{"a":"고양이"}', "text") == 'event: text\ndata: {"a":"고양이"}\n\n'.encode()
    assert encode_event("[DONE]") == b"data: [DONE]\n\n"


def test_data_is_one_line_for_readers_of_decoded_text_as_well() -> None:
    said = {"text": "a\x85b\u2028c\u2029d\x1ce\x0b\r\n"}
    _, line, *_ = encode_event(json.dumps(said, ensure_ascii=False), "text").decode().splitlines()
    assert json.loads(line.removeprefix("data: ")) == said


class Script:
    """A generator of events: bytes are yielded, numbers are pauses, errors are raised."""

    def __init__(self, *steps: bytes | float | Exception) -> None:
        self.steps = steps
        self.ended: str | None = None

    async def events(self) -> AsyncGenerator[bytes, None]:
        try:
            for step in self.steps:
                if isinstance(step, bytes):
                    yield step
                elif isinstance(step, Exception):
                    raise step
                else:
                    await asyncio.sleep(step)
            self.ended = "whole"
        except BaseException as error:
            self.ended = type(error).__name__
            raise


async def test_events_that_are_there_come_in_one_part() -> None:
    script = Script(b"a", b"b", 0.01, b"c")
    assert [part async for part in with_comments(script.events(), 10)] == [b"ab", b"c"]
    assert script.ended == "whole"


async def test_no_events_are_no_parts() -> None:
    assert [part async for part in with_comments(Script().events(), 10)] == []


async def test_comments_come_only_while_nothing_else_does() -> None:
    parts = [part async for part in with_comments(Script(b"", 0.1, b"a", *[0.01, b"b"] * 9).events(), 0.03)]
    assert parts[0] == parts[1] == KEEP_ALIVE
    events = parts[parts.index(b"a") :]
    assert b"".join(part for part in events if part != KEEP_ALIVE) == b"a" + b"b" * 9


async def test_no_comment_comes_before_the_first_event() -> None:
    assert [part async for part in with_comments(Script(0.1, b"a").events(), 0.02)] == [b"a"]
    with pytest.raises(OutOfMemory):
        await anext(with_comments(Script(0.1, OutOfMemory("none is left")).events(), 0.02))


async def test_an_error_comes_behind_the_events_before_it() -> None:
    script, parts = Script(b"a", OutOfMemory("none is left")), []
    generator = with_comments(script.events(), 10)
    parts.append(await anext(generator))
    with pytest.raises(OutOfMemory):
        await anext(generator)
    assert parts == [b"a"]
    assert script.ended == "OutOfMemory"


@pytest.mark.parametrize(("steps", "how"), [((b"a", 60.0), "CancelledError"), ((b"a", 0.01, OutOfMemory("late")), "OutOfMemory")])
async def test_a_reader_that_leaves_ends_the_events(steps: tuple[bytes | float | Exception, ...], how: str) -> None:
    script = Script(*steps)
    generator = with_comments(script.events(), 10)
    assert await anext(generator) == b"a"
    await asyncio.sleep(0.03)
    await generator.aclose()
    assert script.ended == how


async def test_a_reader_that_is_cancelled_ends_the_events() -> None:
    script = Script(60.0)
    generator = with_comments(script.events(), 10)

    async def read() -> bytes:
        return await anext(generator)

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.wait({reading})
    assert reading.cancelled()
    assert script.ended == "CancelledError"
