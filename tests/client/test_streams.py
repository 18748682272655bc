"""``stream_lmm`` against a server whose events are written down by hand: cut anywhere, broken off anywhere, with errors anywhere."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence2.client import (
    Answer,
    CallError,
    ConnectionFailed,
    Done,
    ImageFailed,
    InferenceConfiguration,
    InferenceHTTPClient,
    InvalidInput,
    InvalidParameter,
    ObjectFound,
    TextDecided,
    UnexpectedAnswer,
)
from florence2.results import FoundObject
from tests.client.stub import INFO, Received, Reply, Stub, caption

FAST = InferenceConfiguration(retry_wait_s=0.0)
Stream = Callable[..., list[Any]]


@pytest.fixture(params=["blocking", "awaited"])
def stream(request: pytest.FixtureRequest) -> Stream:
    """The events of a call, or the first ones of them, after which the stream is left."""

    def run(
        client: InferenceHTTPClient, *arguments: Any, most: int | None = None, seen: list[Any] | None = None, **options: Any
    ) -> list[Any]:
        events = [] if seen is None else seen

        async def awaited() -> None:
            async with client.stream_lmm_async(*arguments, **options) as stream:
                async for event in stream:
                    events.append(event)
                    if len(events) == most:
                        break

        if request.param == "awaited":
            asyncio.run(awaited())
        else:
            with client.stream_lmm(*arguments, **options) as stream:
                events.extend(itertools.islice(stream, most))
        return events

    return run


def sse(kind: str, **fields: Any) -> bytes:
    body = fields.pop("body", fields)
    return f"event: {kind}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def text(said: str, image: int = 0, prompt: int = 0) -> bytes:
    return sse("text", image_index=image, prompt_index=prompt, text=said)


def done(body: Any) -> bytes:
    return sse("done", body=body)


def streamed(*pieces: bytes | float, **more: Any) -> Reply:
    return Reply(pieces=pieces, **more)


BODY = b": keep-alive\n\n" + text("a do") + text("g\u98a8") + done(caption("a dog\u98a8"))
EVENTS = [TextDecided("a do"), TextDecided("g\u98a8"), Done(caption("a dog\u98a8"))]


def test_events_and_at_last_the_answer(stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    stub.replies = [streamed(BODY)]
    assert stream(client, jpeg, "m", "<CAPTION>", num_beams=1) == EVENTS
    assert (stub.last.path, stub.last.json["stream"], stub.last.json["num_beams"], stub.last.json["api_key"]) == (
        "/infer/lmm",
        True,
        1,
        "KEY1234567890",
    )


def test_events_cut_anywhere(stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    for size in (1, 2, 3, 5, 64):
        stub.replies = [streamed(*(BODY[start : start + size] for start in range(0, len(BODY), size)))]
        assert stream(client, jpeg, "m", "<CAPTION>") == EVENTS


def test_a_stream_that_breaks_off_anywhere_is_an_error(client: InferenceHTTPClient, stub: Stub, jpeg_bytes: bytes) -> None:
    client.configure(InferenceConfiguration(max_retries=0))
    for place in range(len(BODY)):
        for breaks_off in (False, True):
            seen: list[Any] = []
            stub.replies = [streamed(*[BODY[:place]][: bool(place)], breaks_off=breaks_off)]
            with pytest.raises(ConnectionFailed, match="broke off"):
                seen.extend(client.stream_lmm(jpeg_bytes, "m", "<CAPTION>"))
            assert seen == EVENTS[: BODY[:place].count(b"}\n\n")]


def test_what_follows_the_answer_is_of_no_matter(stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    stub.replies = [streamed(BODY, text("more"), b"event: done\ndata: nonsense\n\n", breaks_off=True)]
    assert stream(client, jpeg, "m", "<CAPTION>") == EVENTS


def test_a_request_is_sent_again_until_there_is_an_event(stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    client.configure(FAST)
    busy = sse("error", message="busy", code="overloaded", status=503)
    for first in (Reply(503, {}), Reply(0), streamed(b": keep-alive\n\n", breaks_off=True), streamed(b": keep-alive\n\n", busy)):
        stub.received.clear()
        stub.replies = [first, streamed(BODY)]
        assert stream(client, jpeg, "m", "<CAPTION>") == EVENTS
        assert len(stub.received) == 2
    for later in (busy, b""):
        stub.received.clear()
        stub.replies = [streamed(text("a do"), later, breaks_off=not later), streamed(BODY)]
        seen: list[Any] = []
        with pytest.raises((CallError, ConnectionFailed)):
            stream(client, jpeg, "m", "<CAPTION>", seen=seen)
        assert (seen, len(stub.received)) == (EVENTS[:1], 1)


def test_errors_are_those_of_the_whole_answer(stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    body = {"message": "needs a text KEY1234567890", "code": "invalid_prompt", "field": "text", "help_url": "/docs/errors", "status": 400}
    headers = {"x-request-id": "r-1"}
    errors = []
    for reply in (
        Reply(400, body, headers),
        streamed(sse("error", **body), headers=headers),
        streamed(text("a"), sse("error", **body), headers=headers),
    ):
        stub.replies = [reply]
        with pytest.raises(CallError) as caught:
            stream(client, jpeg, "m", "<OD>")
        errors.append(vars(caught.value))
    stub.replies = [Reply(400, body, headers)]
    with pytest.raises(CallError) as caught:
        client.infer_lmm(jpeg, "m", "<OD>")
    assert errors == [vars(caught.value)] * 3
    assert "KEY1234567890" not in str(caught.value)


@pytest.mark.parametrize(
    "event",
    [
        b"event: text\ndata: {\n\n",
        b"event: text\ndata: []\n\n",
        sse("text", text="a", prompt_index=0),
        sse("text", text="a", image_index=5, prompt_index=0),
        sse("object", image_index=0, prompt_index=0, object_index=0, label="a"),
        sse("object", image_index=0, prompt_index=0, object_index=0, label="a", box=[1, 2]),
        sse("done", body=[1]),
        sse("done", body={"image": {}}),
    ],
)
def test_events_in_another_form(stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path, event: bytes) -> None:
    stub.replies = [streamed(event, BODY)]
    with pytest.raises(UnexpectedAnswer):
        stream(client, jpeg, "m", "<OD>", typed=True)


def test_events_of_kinds_to_come_are_passed_over(stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    stub.replies = [streamed(b"event: queued\ndata: 3\n\ndata: x\n\n", BODY)]
    assert stream(client, jpeg, "m", "<CAPTION>") == EVENTS


def test_mistakes_are_told_before_anything_is_sent(stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    with pytest.raises(InvalidParameter, match="stream_lmm has no option num_beam; did you mean num_beams"):
        client.stream_lmm(jpeg, "m", "<OD>", num_beam=3)  # type: ignore[call-overload]
    with pytest.raises(InvalidInput, match="no file"):
        stream(client, "/nope/x.jpg", "m", "<OD>")
    with pytest.raises(InvalidInput, match="image 1: there is no file"):
        stream(client, [jpeg, "/nope/x.jpg"], "m", "<OD>")
    assert stub.received == []


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {"model_id_in_path": True, "region": (1, 2, 30, 40), "raw": True}),
        (
            {"api_key_transport": "both", "source": "word", "service_secret": "s"},
            {"prompts": ["<OD>", {"prompt": "p", "region": (1, 2, 3, 4)}]},
        ),
        ({"client_downsizing_disabled": False, "default_max_input_size": 32}, {"region": (1, 2, 30, 40)}),
        ({"send_urls": True}, {"max_new_tokens": 5, "enable_thinking": False}),
    ],
)
@pytest.mark.parametrize("is_hosted", [False, True])
def test_the_request_is_that_of_the_whole_answer(
    stream: Stream,
    client: InferenceHTTPClient,
    stub: Stub,
    jpeg: Path,
    picture: Image.Image,
    settings: dict[str, Any],
    options: dict[str, Any],
    is_hosted: bool,
) -> None:
    client.configure(InferenceConfiguration(**settings))
    if is_hosted:
        client.select_api_v0()
    url = stub.url + "/dog.jpg"
    stub.respond = lambda received: Reply(200, jpeg.read_bytes()) if received.method == "GET" else Reply(body=caption("a dog"))

    def sent() -> list[Any]:
        received, stub.received = stub.received, []
        return sorted((one.path, one.body.replace(b'"stream": true, ', b""), one.headers.get("authorization")) for one in received)

    for given in (jpeg, str(jpeg), jpeg.read_bytes(), picture, np.asarray(picture), url, [[jpeg], picture]):
        client.infer_lmm(given, "m", "<OD>", **options)
        assert b'"stream"' not in stub.last.body
        whole = sent()
        stream(client, given, "m", "<OD>", **options)
        assert stub.last.json["stream"] is True
        assert sent() == whole


# Objects


OBJECTS = {
    "boxes": ({"box": [0, 0, 15, 11]}, {"bboxes": [[0, 0, 15, 11]], "labels": ["red"]}),
    "quads": ({"box": [1, 0, 9, 8], "quad": [1, 0, 9, 1, 8, 8, 2, 7]}, {"quad_boxes": [[1, 0, 9, 1, 8, 8, 2, 7]], "labels": ["red"]}),
    "polygons": (
        {"box": [1, 0, 9, 20], "polygons": [[1, 0, 9, 1, 8, 8], [3, 20, 4, 5, 6, 7]]},
        {"polygons": [[[1, 0, 9, 1, 8, 8], [3, 20, 4, 5, 6, 7]]], "labels": ["red"]},
    ),
    "floats": ({"box": [0.5, 0.25, 15.5, 11.125]}, {"bboxes": [[0.5, 0.25, 15.5, 11.125]], "labels": ["red"]}),
    "scores": ({"box": [0, 0, 15, 11], "score": 0.75}, {"bboxes": [[0, 0, 15, 11]], "labels": ["red"], "scores": [0.75]}),
}


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("is_scaled", [False, True])
def test_objects_are_those_of_the_answer(
    stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path, kind: str, is_scaled: bool
) -> None:
    found, value = OBJECTS[kind]
    size = {"width": 32, "height": 24} if is_scaled else {"width": 64, "height": 48}
    client.configure(InferenceConfiguration(client_downsizing_disabled=not is_scaled, default_max_input_size=32))
    whole = {"inference_id": "1", "time": 0.1, "image": size, "response": {"<OD>": value}}
    reply = streamed(sse("object", image_index=0, prompt_index=0, object_index=0, label="red", **found), done(whole))
    stub.replies = [reply, reply, Reply(200, whole)]
    (event, last) = stream(client, jpeg, "m", "<OD>", typed=True)
    assert isinstance(last.answer, Answer)
    assert event == ObjectFound(last.answer.objects[0], 0)
    assert last.answer.image_size == (64, 48)
    assert stream(client, jpeg, "m", "<OD>")[-1] == Done(client.infer_lmm(jpeg, "m", "<OD>"))


def test_prompts_have_their_index(stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    whole = {**caption("a"), "response": [{"<CAPTION>": "a"}, {"<OD>": {"bboxes": [[1, 2, 3, 4]], "labels": ["b"]}}]}
    found = sse("object", image_index=0, prompt_index=1, object_index=0, label="b", box=[1, 2, 3, 4])
    stub.replies = [streamed(text("b<loc_1>", prompt=1), text("a"), found, done(whole))]
    *events, last = stream(client, jpeg, "m", prompts=["<CAPTION>", "<OD>"], typed=True)
    assert events == [TextDecided("b<loc_1>", 0, 1), TextDecided("a"), ObjectFound(FoundObject("b", (1, 2, 3, 4)), 0, 0, 1)]
    assert [answer.task for answer in last.answer] == ["<CAPTION>", "<OD>"]


def test_usage(stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    usage = {"prompt_tokens": 590, "image_tokens": 577, "completion_tokens": 5, "total_tokens": 595, "image_cached": True}
    stub.replies = [streamed(done({**caption("a"), "usage": usage}))]
    (last,) = stream(client, jpeg, "m", "<CAPTION>", usage=True, typed=True)
    found = last.answer.usage
    assert (found.num_prompt_tokens, found.num_image_tokens, found.num_answer_tokens, found.is_image_cached) == (590, 577, 5, True)
    assert stub.last.json["usage"] is True


# Servers that do not stream


def test_an_answer_in_one_piece_is_the_last_event(stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    assert stream(client, jpeg, "m", "<CAPTION>") == [TextDecided("a dog"), Done(caption("a dog"))]
    found = {**caption(""), "response": {"<OD>": {"bboxes": [[1, 2, 3, 4]], "labels": ["b"]}}}
    stub.replies = [Reply(200, found)]
    assert stream(client, jpeg, "m", "<OD>") == [ObjectFound(FoundObject("b", (1, 2, 3, 4)), 0), Done(found)]
    stub.replies = [Reply(200, {"response": "odd"})]
    assert stream(client, jpeg, "m", "<OD>") == [Done({"response": "odd"})]
    stub.replies = [Reply(200, b"<html>a proxy's page")]
    with pytest.raises(UnexpectedAnswer, match="proxy"):
        stream(client, jpeg, "m", "<CAPTION>")


# Lists


def squares(count: int) -> list[Any]:
    return [np.full((16, 16, 3), 7 * place, np.uint8) for place in range(count)]


def shades(received: Received) -> list[str]:
    image = received.json["image"]
    return [one["value"] for one in (image if isinstance(image, list) else [image])]


def echoing(received: Received) -> Reply:
    """A stream whose text is the end of each image's base64, its prompt counted."""
    if received.path == "/info":
        return Reply(body={**INFO, "name": "florence2 server"})
    answers = [caption(value[-40:]) for value in shades(received)]
    pieces = [text(answer["response"]["<CAPTION>"], index) for index, answer in enumerate(answers)]
    return streamed(0.01, *pieces, done(answers if len(answers) > 1 else answers[0]))


@pytest.mark.parametrize(("batch", "concurrent"), [(1, 1), (1, 4), (2, 1), (3, 2), (64, 4)])
def test_lists_have_the_callers_indices(stream: Stream, client: InferenceHTTPClient, stub: Stub, batch: int, concurrent: int) -> None:
    stub.respond = echoing
    client.configure(InferenceConfiguration(max_batch_size=batch, max_concurrent_requests=concurrent))
    told: list[tuple[int, int]] = []
    *events, last = stream(client, squares(5), "m", "<CAPTION>", progress=lambda count, total: told.append((count, total)))
    said = {event.image_index: event.text for event in events}
    assert [answer["response"]["<CAPTION>"] for answer in last.answer] == [said[index] for index in range(5)]
    assert len(stub.received) == -(-5 // batch)
    assert stub.most_under_way <= concurrent
    assert told[-1] == (5, 5)


def test_empty_and_short_lists(stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    assert stream(client, [], "m", "<CAPTION>", progress=True) == [Done([])]
    assert stream(client, ["/nope"], "m", "<CAPTION>", on_error="item")[0].image_index == 0
    assert stub.received == []
    stub.replies = [streamed(BODY)]
    assert stream(client, [jpeg], "m", "<CAPTION>") == [*EVENTS[:2], Done([EVENTS[2].answer])]


def test_errors_in_their_images_place(stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    client.configure(InferenceConfiguration(max_batch_size=2, max_concurrent_requests=1))
    client._own_servers[stub.url] = True
    damaged = {"message": "image[1]: damaged", "code": "invalid_image", "field": "image", "status": 400}
    replies = [
        streamed(sse("error", image_index=1, **damaged), text("a"), done([caption("a"), {"error": damaged}])),
        Reply(500, {"message": "Internal error."}),
    ]
    given = [jpeg, "/nope/x.jpg", jpeg, jpeg, jpeg]
    stub.replies = list(replies)
    *events, last = stream(client, given, "m", "<CAPTION>", on_error="item")
    failed = [event for event in events if isinstance(event, ImageFailed)]
    assert [event.image_index for event in failed] == [1, 2, 3, 4]
    assert [event.error.index for event in failed] == [1, 2, 3, 4]
    assert last.answer == [caption("a"), *(event.error for event in failed)]
    assert failed[1].error.api_message == "damaged"
    assert stub.received[0].json["on_error"] == "item"
    stub.replies = [streamed(text("a"), sse("error", **damaged))]
    with pytest.raises(CallError, match="image 1: damaged"):
        stream(client, [jpeg, jpeg], "m", "<CAPTION>")


# Leaving


def endless() -> Iterator[bytes | float]:
    while True:
        yield text("a dog")
        yield 0.01


@pytest.mark.parametrize("num_images", [0, 3])
def test_the_server_sees_a_stream_that_is_left(
    stream: Stream, client: InferenceHTTPClient, stub: Stub, jpeg: Path, num_images: int
) -> None:
    stub.respond = lambda _: Reply(pieces=endless())
    assert len(stream(client, [jpeg] * num_images if num_images else jpeg, "m", "<CAPTION>", most=2)) == 2
    assert stub.left.wait(10)


def test_a_stream_that_is_dropped_is_closed(client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    stub.respond = lambda _: Reply(pieces=endless())
    for _ in client.stream_lmm(jpeg, "m", "<CAPTION>"):
        break
    assert stub.left.wait(10)
    stub.left.clear()

    async def run() -> None:
        async for _ in client.stream_lmm_async(jpeg, "m", "<CAPTION>"):
            break
        assert await asyncio.to_thread(stub.left.wait, 10)

    asyncio.run(run())
    client.stream_lmm(jpeg, "m", "<CAPTION>")  # never begun
    client.stream_lmm_async(jpeg, "m", "<CAPTION>")
    gc.collect()
    assert len(stub.received) == 2


def test_the_server_sees_a_task_that_is_cancelled(client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    async def run(given: Any) -> None:
        async def read() -> None:
            async for _ in client.stream_lmm_async(given, "m", "<CAPTION>"):
                pass

        task = asyncio.ensure_future(read())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(stub.left.wait, 10)

    stub.respond = lambda _: Reply(pieces=endless())
    for given in (jpeg, [jpeg] * 3):
        stub.left.clear()
        asyncio.run(run(given))


def silent() -> Iterator[bytes | float]:
    yield text("a dog")
    while True:
        yield 0.05
        yield b": keep-alive\n\n"


@pytest.mark.parametrize("num_images", [0, 3])
def test_closing_in_another_thread_ends_the_iteration(client: InferenceHTTPClient, stub: Stub, jpeg: Path, num_images: int) -> None:
    stub.respond = lambda _: Reply(pieces=silent())
    stream = client.stream_lmm([jpeg] * num_images if num_images else jpeg, "m", "<CAPTION>")
    next(stream)
    seen: list[Any] = []
    reading = threading.Thread(target=lambda: seen.extend(stream))
    reading.start()
    time.sleep(0.1)
    stream.close()
    reading.join(5)
    assert not reading.is_alive()
    assert [event for event in seen if not isinstance(event, TextDecided)] == []
    assert list(stream) == []
    assert stub.left.wait(10)


@pytest.mark.parametrize("num_images", [0, 3])
def test_closing_in_another_task_ends_the_iteration(client: InferenceHTTPClient, stub: Stub, jpeg: Path, num_images: int) -> None:
    stub.respond = lambda _: Reply(pieces=silent())

    async def run() -> None:
        stream = client.stream_lmm_async([jpeg] * num_images if num_images else jpeg, "m", "<CAPTION>")
        await anext(stream)

        async def read() -> list[Any]:
            return [event async for event in stream]

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0.1)
        await stream.aclose()
        await stream.aclose()
        seen = await asyncio.wait_for(reading, 5)
        assert [event for event in seen if not isinstance(event, TextDecided)] == []
        assert [event async for event in stream] == []
        assert await asyncio.to_thread(stub.left.wait, 10)

    asyncio.run(run())


def test_connections_are_used_again(stub: Stub, jpeg: Path) -> None:
    stub.respond = lambda _: streamed(BODY)
    with InferenceHTTPClient(stub.url) as client:
        for _ in range(3):
            assert list(client.stream_lmm(jpeg, "m", "<CAPTION>")) == EVENTS
        assert stub.connections == 1

        async def several() -> None:
            async with client:
                for _ in range(3):
                    assert [event async for event in client.stream_lmm_async(jpeg, "m", "<CAPTION>")] == EVENTS

        asyncio.run(several())
    assert stub.connections == 2
    assert list(InferenceHTTPClient(stub.url).stream_lmm(jpeg, "m", "<CAPTION>")) == EVENTS  # which holds its client
    gc.collect()


def test_streams_below_a_running_loop_and_in_many_threads(client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    stub.respond = echoing

    async def notebook() -> None:
        assert len(list(client.stream_lmm(squares(3), "m", "<CAPTION>"))) == 4
        assert len(list(client.stream_lmm(jpeg, "m", "<CAPTION>"))) == 2

    asyncio.run(notebook())
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda one=one: answers.append(list(client.stream_lmm(one, "m", "<CAPTION>")))) for one in squares(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(last.answer["response"]["<CAPTION>"] == said.text for said, last in answers)
    assert len({said.text for said, _ in answers}) == 8
