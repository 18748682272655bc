"""``stream_lmm`` against this project's server on a socket: rows are freed for callers who leave, errors are those of the whole answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fixtures.fake_engine import FakeEngine
from florence2.client import CallError, Done, InferenceConfiguration, InferenceHTTPClient, LmmStream, TextDecided
from florence2.errors import OutOfMemory
from tests.playground.serving import ServerThread, serving
from tests.server.scripted import ScriptedEngine, words

MODEL = "florence-2-base"
CAPTION = "<CAPTION>"


@contextmanager
def served(engine: FakeEngine, **settings: Any) -> Iterator[tuple[ServerThread, InferenceHTTPClient]]:
    with serving(engine, **{"stream_keep_alive_s": 0.05, **settings}) as server, InferenceHTTPClient(server.url) as client:
        client.select_model(MODEL)
        client.configure(InferenceConfiguration(retry_wait_s=0.0))
        yield server, client


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def slow() -> ScriptedEngine:
    return ScriptedEngine(words(*(f"{number} \u98a8\U0001f436 " for number in range(500))), pause_s=0.02)


@pytest.mark.parametrize("num_images", [1, 3])
@pytest.mark.parametrize("batch", [1, 8])
def test_leaving_frees_rows_and_slots(jpeg_bytes: bytes, num_images: int, batch: int) -> None:
    engine = slow()
    given: Any = [jpeg_bytes] * num_images if num_images > 1 else jpeg_bytes
    with served(engine) as (server, client):
        client.configure(InferenceConfiguration(max_batch_size=batch))
        for event in client.stream_lmm(given, prompts=[CAPTION, "<OCR>"]):
            assert isinstance(event, TextDecided)
            assert len(engine.futures) <= 2 * num_images
            break
        until(lambda: server.num_slots == 0)
        assert all(future.cancelled() for future in engine.futures)
        stream = client.stream_lmm(given, prompt=CAPTION)
        next(stream)
        closing = threading.Timer(0.1, stream.close)
        closing.start()
        assert all(isinstance(event, TextDecided) for event in stream)
        until(lambda: server.num_slots == 0)

        async def cancelled() -> None:
            async def read() -> None:
                async for _ in client.stream_lmm_async(given, prompt=CAPTION):
                    pass

            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(read(), 0.3)

        asyncio.run(cancelled())
        until(lambda: server.num_slots == 0)
        assert all(future.cancelled() for future in engine.futures)


def test_leaving_the_queue_frees_its_place(jpeg_bytes: bytes) -> None:
    engine = FakeEngine()
    engine.hold = True

    def read(stream: LmmStream[Any]) -> None:
        assert list(stream) == []

    with served(engine) as (server, client):
        stream = client.stream_lmm(jpeg_bytes, prompt=CAPTION)
        reading = threading.Thread(target=read, args=(stream,))
        reading.start()
        until(lambda: len(engine.futures) == 1)
        time.sleep(0.2)  # comments come
        stream.close()
        reading.join(10)
        assert not reading.is_alive()
        until(lambda: server.num_slots == 0)
        assert engine.futures[0].cancelled()


def test_comments_keep_a_silent_answer_alive(jpeg_bytes: bytes) -> None:
    engine = FakeEngine()
    engine.hold = True
    with served(engine) as (_, client):
        client.configure(InferenceConfiguration(timeout_s=0.3))
        threading.Timer(0.8, engine.release).start()
        *events, last = client.stream_lmm(jpeg_bytes, prompt=CAPTION)
        assert isinstance(last, Done)
        assert "".join(event.text for event in events if isinstance(event, TextDecided)) == last.answer["response"][CAPTION]


@pytest.mark.parametrize("num_events", [0, 2])
def test_an_engine_that_fails_is_the_error_of_the_whole_answer(jpeg_bytes: bytes, num_events: int) -> None:
    with served(ScriptedEngine(words("a", " dog")[:num_events], OutOfMemory("no memory is left"))) as (_, client):
        client.configure(InferenceConfiguration(max_retries=0))
        seen: list[Any] = []
        with pytest.raises(CallError) as caught:
            seen.extend(client.stream_lmm(jpeg_bytes, prompt=CAPTION))
        with pytest.raises(CallError) as whole:
            client.infer_lmm(jpeg_bytes, prompt=CAPTION)
        both = [{**vars(error), "message": "", "request_id": ""} for error in (caught.value, whole.value)]
        assert both[0] == both[1]
        assert caught.value.status_code == 503


def test_text_is_never_broken_and_equals_the_answers(jpeg_bytes: bytes) -> None:
    texts = ["\u98a8", "\U0001f469\u200d\U0001f680", "e\u0301", " \u2028\n\r\t", "\x00\x1b", "</s> data: x\n\nevent: done\n\n", '"\\']
    with served(ScriptedEngine(words(*texts))) as (_, client):
        *events, last = client.stream_lmm([jpeg_bytes] * 2, prompts=[CAPTION, "<OCR>"])
        assert isinstance(last, Done)
        for image in range(2):
            for prompt, task in enumerate((CAPTION, "<OCR>")):
                said = [event for event in events if isinstance(event, TextDecided)]
                mine = "".join(event.text for event in said if (event.image_index, event.prompt_index) == (image, prompt))
                assert mine == last.answer[image]["response"][prompt][task] == "".join(texts)
