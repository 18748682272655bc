"""Requests over real sockets to a scripted server: what is sent, how long it took, and what kind of failure each failure is."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from florence2.load_testing.apis import LmmApi, OpenAIApi, Options
from florence2.load_testing.measurement import Measurement
from florence2.load_testing.pictures import Pictures, draw_pictures
from florence2.load_testing.sending import Clock, Sender
from florence2.load_testing.workload import Planned
from tests.load_testing.scripted import ANSWER, Asked, Behaviour, Reply, event, scripted

PLANNED = Planned("<CAPTION>", "<CAPTION>", 0, 1)
KEY = "secret-key-1"
LMM = LmmApi(Options("tiny", api_key=KEY, fields={"num_beams": 3}), asks_for_usage=True)
OPENAI = OpenAIApi(Options("tiny", fields={"max_tokens": 5}))


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return draw_pictures(1, (64, 48), seed=0)


def always(reply: Reply) -> Behaviour:
    async def behave(_: Asked) -> Reply:
        return reply

    return behave


def streamed(api: type[LmmApi] | type[OpenAIApi]) -> Any:
    return api(Options("tiny", is_streamed=True))


def sent(url: str, pictures: Pictures, api: Any = LMM, count: int = 1, timeout_s: float = 20.0, **options: Any) -> list[Measurement]:
    async def send() -> list[Measurement]:
        headers = {"authorization": f"Bearer {KEY}", "x-a": "b"}
        sender = Sender(url, api, pictures, headers=headers, timeout_s=timeout_s, secrets=(KEY,), **options)
        clock = Clock()
        try:
            return [await sender.send(PLANNED, clock(), clock) for _ in range(count)]
        finally:
            await sender.close()

    return asyncio.run(send())


def test_a_request_of_infer_lmm(pictures: Pictures) -> None:
    with scripted(always(Reply({**ANSWER, "usage": {"completion_tokens": 7}}, delay_s=0.1))) as server:
        found = sent(server.url, pictures)[0]
    asked = server.asked[0]
    picture = asked.json.pop("image")
    assert (asked.path, asked.headers["authorization"], asked.headers["x-a"]) == ("/infer/lmm", f"Bearer {KEY}", "b")
    assert asked.json | {"image": None} == {
        "api_key": KEY,
        "model_id": "tiny",
        "prompt": "<CAPTION>",
        "num_beams": 3,
        "usage": True,
        "image": None,
    }
    assert base64.b64decode(picture["value"]) == base64.b64decode(pictures.pictures[0].base64(1))
    assert (found.outcome, found.status, found.num_tokens, found.error) == ("answered", 200, 7, None)
    assert 0.1 <= found.latency_s < 2


def test_a_request_of_chat_completions(pictures: Pictures) -> None:
    body = {"choices": [{"message": {"content": "a cat"}}], "usage": {"completion_tokens": 3}}
    with scripted(always(Reply(body))) as server:
        found = sent(server.url, pictures, OPENAI)[0]
    asked = server.asked[0]
    text, picture = asked.json["messages"][0]["content"]
    assert (asked.path, asked.json["model"], asked.json["max_tokens"]) == ("/v1/chat/completions", "tiny", 5)
    assert text == {"type": "text", "text": "<CAPTION>"}
    assert picture["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert (found.outcome, found.num_tokens) == ("answered", 3)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_form_is_the_one_that_openai_s_client_knows(is_streamed: bool) -> None:
    from openai.types.chat import ChatCompletionContentPartParam
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming
    from pydantic import TypeAdapter

    body = json.loads(OpenAIApi(Options("tiny", is_streamed, fields={"max_tokens": 5})).body("<OD>", b"AAAA", "image/png"))
    form = CompletionCreateParamsStreaming if is_streamed else CompletionCreateParamsNonStreaming
    known: Any = TypeAdapter(form).validate_python(body)
    assert set(known) == set(body)
    (message,) = body["messages"]
    assert [TypeAdapter(ChatCompletionContentPartParam).validate_python(part) for part in message["content"]] == message["content"]
    assert message["content"][1]["image_url"]["url"] == "data:image/png;base64,AAAA"


def test_a_connection_is_used_again_and_a_broken_one_is_not(pictures: Pictures) -> None:
    async def behave(asked: Asked) -> Reply:
        return Reply(breaks_off=asked.number == 1)

    with scripted(behave) as server:
        assert [one.outcome for one in sent(server.url, pictures, count=4)] == ["answered", "failed", "answered", "answered"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_with_when_to_come_back(pictures: Pictures, status: int) -> None:
    reply = Reply({"message": f"later, {KEY}"}, status=status, headers={"Retry-After": "3"})
    with scripted(always(reply)) as server:
        found = sent(server.url, pictures)[0]
    assert (found.outcome, found.status, found.error, found.retry_after_s) == ("refused", status, str(status), 3)
    assert found.message is not None
    assert "later" in found.message
    assert KEY not in found.message


@pytest.mark.parametrize(
    ("reply", "error", "status", "said"),
    [
        (Reply({"error": {"message": "in its form", "code": "x"}}, status=500), "500", 500, "in its form"),
        (Reply(b"<html>", status=502, headers={"content-type": "text/html"}), "502", 502, "Bad Gateway"),
        (Reply(b"{"), "not an answer", 200, "not JSON"),
        (Reply([1]), "not an answer", 200, "a JSON list"),
        (Reply({"answer": 1}), "not an answer", 200, "no response"),
        (Reply(breaks_off=True), "connection broke off", None, "disconnected"),
        (Reply(delay_s=5.0), "timeout", None, "within 0.3 s"),
    ],
)
def test_failures_by_their_kind(pictures: Pictures, reply: Reply, error: str, status: int | None, said: str) -> None:
    with scripted(always(reply)) as server:
        found = sent(server.url, pictures, timeout_s=0.3 if error == "timeout" else 20.0)[0]
    assert (found.outcome, found.error, found.status) == ("failed", error, status)
    assert found.message is not None
    assert said in found.message


def test_nobody_listens(pictures: Pictures) -> None:
    found = sent("http://127.0.0.1:9", pictures)[0]
    assert (found.outcome, found.error, found.status) == ("failed", "no connection", None)


def chunk(content: str) -> str:
    return event({"choices": [{"delta": {"content": content}}]})


LMM_EVENTS = (
    ": keep-alive\n\n",
    0.2,
    event({"text": "a"}, "text"),
    0.3,
    event({"object_index": 0}, "object"),
    event({**ANSWER, "usage": {"completion_tokens": 4}}, "done"),
)
OPENAI_EVENTS = (
    event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}),
    0.2,
    chunk("a"),
    0.3,
    chunk("b"),
    event({"choices": [], "usage": {"completion_tokens": 4}}),
    event("[DONE]"),
)


@pytest.mark.parametrize(("api", "pieces"), [(LmmApi, LMM_EVENTS), (OpenAIApi, OPENAI_EVENTS)])
def test_streams(pictures: Pictures, api: Any, pieces: tuple[str | float, ...]) -> None:
    with scripted(always(Reply(pieces=pieces))) as server:
        found = sent(server.url, pictures, streamed(api), is_streamed=True)[0]
    assert server.asked[0].json["stream"] is True
    assert (found.outcome, found.num_tokens) == ("answered", 4)
    assert found.first_event_s is not None
    assert 0.2 <= found.first_event_s - found.due_s < 0.49  # what says nothing of the answer is no event
    assert [round(gap, 1) >= 0.3 for gap in found.gaps_s] == [True]


@pytest.mark.parametrize(
    ("api", "pieces", "outcome", "error"),
    [
        (LmmApi, (event({"text": "a"}, "text"),), "failed", "stream broke off"),
        (LmmApi, (event({"status": 503, "message": "later", "retry_after": 2.5}, "error"),), "refused", "503"),
        (LmmApi, (event({"status": 504, "message": "too long"}, "error"),), "failed", "504"),
        (LmmApi, (event("{", "done"),), "failed", "not an answer"),
        (OpenAIApi, (chunk("a"),), "failed", "stream broke off"),
        (OpenAIApi, (event({"error": {"message": "no", "code": "x"}}),), "failed", "error event"),
    ],
)
def test_streams_that_fail(pictures: Pictures, api: Any, pieces: tuple[str, ...], outcome: str, error: str) -> None:
    with scripted(always(Reply(pieces=pieces))) as server:
        found = sent(server.url, pictures, streamed(api), is_streamed=True)[0]
    assert (found.outcome, found.error) == (outcome, error)
    assert found.retry_after_s == (2.5 if outcome == "refused" else None)


def test_a_stream_that_answers_whole_has_no_first_event(pictures: Pictures) -> None:
    with scripted(always(Reply())) as server:
        found = sent(server.url, pictures, streamed(LmmApi), is_streamed=True)[0]
    assert (found.outcome, found.first_event_s) == ("answered", None)


def test_many_at_once_have_a_connection_each(pictures: Pictures) -> None:
    async def behave(_: Asked) -> Reply:
        return Reply(delay_s=0.5)

    async def send(url: str) -> list[Measurement]:
        sender = Sender(url, LMM, pictures, headers={}, timeout_s=20)
        clock = Clock()
        try:
            return await asyncio.gather(*(sender.send(PLANNED, 0.0, clock) for _ in range(150)))
        finally:
            await sender.close()

    with scripted(behave) as server:
        found = asyncio.run(send(server.url))
    assert {one.outcome for one in found} == {"answered"}
    assert max(one.ended_s for one in found) < 10  # one after the other they would take 75 s
