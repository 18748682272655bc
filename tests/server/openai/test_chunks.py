"""Answers in chunks, and errors before, in the middle of and instead of them, as the official client takes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from fixtures.fake_engine import FakeEngine
from florence2.errors import DownloadError, EngineFailed
from florence2.results import Result
from florence2.server.http.json_body import parse_object
from florence2.server.inference.freeing_rate import FreeingRate
from florence2.server.inference.request import InferenceRequest, RequestPrompt
from florence2.server.openai.chunks import stream_chunks
from florence2.server.openai.image_url import UrlImage
from florence2.server.openai.routes import read_request
from florence2.tasks.prompt import parse_prompt
from tests.server.fakes import client_of
from tests.server.openai.chat import chat, data_uri

pytestmark = pytest.mark.anyio
PATH = "/v1/chat/completions"


class Broken(FakeEngine):
    """Reports an answer, and then fails."""

    def submit_many(self, image: Any, prompts: Sequence[Any], *, on_event: Any = None, **options: Any) -> list[Future[Result]]:
        answered = super().submit_many(image, prompts, on_event=on_event, **options)
        failed = [Future[Result]() for _ in answered]
        for future in failed:
            future.set_exception(EngineFailed("a step failed: secret shapes"))
        return failed


def official(client: Any, **options: Any) -> AsyncOpenAI:
    """The official client of an application without a socket."""
    return AsyncOpenAI(base_url="http://server/v1", api_key="KEY", http_client=client, **{"max_retries": 0, **options})


async def events(**fields: Any) -> list[Any]:
    """The data of each event of a stream."""
    async with client_of() as client:
        response = await client.post(PATH, json=chat("<OD>", stream=True, **fields))
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    data = [event.removeprefix("data: ") for event in response.text.split("\n\n")]
    assert data[-2:] == ["[DONE]", ""]
    return [parse_object(one.encode()) for one in data[:-2]]


async def test_the_chunks_of_an_answer() -> None:
    found = await events()
    head = {name: found[0][name] for name in ("id", "object", "created", "model")}
    assert head["object"] == "chat.completion.chunk"
    deltas = [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "th"}, None),
        ({"content": "ing"}, None),
        ({}, "stop"),
    ]
    assert found == [
        {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]} for delta, reason in deltas
    ]


async def test_usage_comes_last_and_alone() -> None:
    found = await events(stream_options={"include_usage": True})
    assert [chunk["usage"] for chunk in found[:-1]] == [None] * 4
    counted = found[-1]["usage"]
    assert found[-1]["choices"] == []
    assert counted["total_tokens"] == counted["prompt_tokens"] + counted["completion_tokens"]


async def test_parsed_answers_come_whole() -> None:
    found = await events(response_format={"type": "json_object"}, logprobs=True)
    (choice,) = [chunk["choices"][0] for chunk in found if chunk["choices"][0]["delta"].get("content")]
    assert json.loads(choice["delta"]["content"]) == {"<OD>": {"bboxes": [[0, 0, 63, 47]], "labels": ["thing"]}}
    assert len(choice["logprobs"]["content"]) > 0


async def test_an_error_in_the_middle_is_raised_by_the_client() -> None:
    texts: list[str] = []

    async def read(stream: Any) -> None:
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content)  # noqa: PERF401 - what came before the error counts

    async with client_of(Broken()) as client:
        stream = await official(client).chat.completions.create(**chat("<OD>"), stream=True)
        with pytest.raises(openai.APIError, match="Internal error") as raised:
            await read(stream)
    assert "".join(texts) == "thing"
    assert raised.value.code == "engine_failed"
    assert "secret" not in str(raised.value.body)


@pytest.mark.parametrize("stream", [False, True])
async def test_errors_of_the_server(stream: bool) -> None:
    def failing(source: str) -> FakeEngine:
        raise DownloadError("the hub is away")

    engine = FakeEngine()
    engine.failure = EngineFailed("secret shapes")
    fields: dict[str, Any] = {**chat("<OD>"), "stream": stream}
    async with client_of(loader=failing, model=[], models={"florence-2-base": "a/b"}) as client:  # type: ignore[arg-type]
        with pytest.raises(openai.InternalServerError) as raised:
            await official(client).chat.completions.create(**fields)
        assert (raised.value.status_code, raised.value.code, raised.value.type) == (502, "download_failed", "server_error")
    if not stream:
        async with client_of(engine) as client:
            with pytest.raises(openai.InternalServerError) as raised:
                await official(client).chat.completions.create(**fields)
        assert (raised.value.status_code, raised.value.code) == (500, "engine_failed")


async def test_the_client_tries_again_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FreeingRate, "promise", lambda *_: 0.2)
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine, max_requests=1) as client:
        first = asyncio.ensure_future(official(client).chat.completions.create(**chat("<CAPTION>")))
        while not engine.futures:
            await asyncio.sleep(0.01)
        with pytest.raises(openai.RateLimitError) as refused:
            await official(client).chat.completions.create(**chat("<OD>"))
        assert (refused.value.code, refused.value.response.headers["retry-after"]) == ("rate_limit_exceeded", "0.2")
        second = asyncio.ensure_future(official(client, max_retries=1).chat.completions.create(**chat("<OD>")))
        await asyncio.sleep(0.05)
        engine.release()
        assert (await first).choices[0].finish_reason == "stop"
        assert (await second).choices[0].message.content == "thing"


async def test_closing_a_stream_cancels_what_it_waits_for() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine) as client:
        server = client.app.state.server  # type: ignore[attr-defined]
        image = UrlImage(data_uri(), "messages", server.fetcher)
        request = InferenceRequest("florence-2-demo", [image], [RequestPrompt(parse_prompt("<OD>"))], {})
        chunks = stream_chunks(read_request(json.dumps(chat("<OD>")).encode()), request, server.inference, engine)
        assert b'"role"' in await anext(chunks)
        await chunks.aclose()
    assert [future.cancelled() for future in engine.futures] == [True]
