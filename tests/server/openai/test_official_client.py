"""The official ``openai`` package, blocking and awaited, against a real server process with the demo model."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from florence2.server.openai.examples import python_call
from tests.docs.markdown import ROOT, fences
from tests.server.openai.chat import data_uri, picture, user
from tests.server.process import running_server

pytestmark = pytest.mark.slow
SCENE = (ROOT / "examples" / "scene.png").read_bytes()
DEMO = "florence-2-demo"
KEY = "0123456789abcdef"
JSON: Any = {"type": "json_object"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server(model=[DEMO], models={}, api_keys=[KEY], precision="fp32") as found:
        yield found


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60) as found:
        yield found


def ask(text: str, **fields: Any) -> dict[str, Any]:
    """The arguments of a call about the scene."""
    return {"model": DEMO, "messages": [user(text, picture(data_uri(SCENE)))], **fields}


def answer_of(url: str, prompt: str, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same server's answer by its own API, and what the model wrote."""
    image = {"type": "base64", "value": base64.b64encode(SCENE).decode()}
    body = {"model_id": DEMO, "prompt": prompt, "image": image, "raw": True, **fields}
    answer = httpx2.post(f"{url}/infer/lmm", json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=60).json()
    return answer["response"], answer["raw"]


def written(raw: dict[str, Any]) -> str:
    """What the model wrote without the tokens that frame it."""
    return re.sub(r"</?s>", "", raw["text"]).strip()


def joined(chunks: list[Any]) -> str:
    """The content of a stream."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


@pytest.mark.parametrize("prompt", ["<CAPTION>", "<OD>", "<OCR_WITH_REGION>", "<OPEN_VOCABULARY_DETECTION>yellow star", "What is this?"])
def test_answers_are_those_of_the_other_api(client: OpenAI, url: str, prompt: str) -> None:
    parsed_there, raw = answer_of(url, prompt)
    plain = client.chat.completions.create(**ask(prompt))
    parsed = client.chat.completions.create(**ask(prompt, response_format=JSON))
    chunks = list(client.chat.completions.create(**ask(prompt), stream=True))
    in_json = list(client.chat.completions.create(**ask(prompt, response_format=JSON), stream=True))
    assert plain.choices[0].message.content == joined(chunks) == written(raw)
    assert json.loads(parsed.choices[0].message.content or "") == json.loads(joined(in_json)) == parsed_there
    assert (plain.model, plain.object, plain.choices[0].finish_reason) == (DEMO, "chat.completion", "stop")
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1


def test_usage_counts_the_picture(client: OpenAI, url: str) -> None:
    _, raw = answer_of(url, "<CAPTION>")  # from here on the picture is cached
    counted = client.chat.completions.create(**ask("<CAPTION>")).usage
    chunks = list(client.chat.completions.create(**ask("<CAPTION>"), stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert [chunk.usage for chunk in chunks] == [None] * (len(chunks) - 1) + [counted]
    assert counted is not None
    assert counted.prompt_tokens_details is not None
    assert counted.completion_tokens == len(raw["token_ids"])
    assert counted.total_tokens == counted.prompt_tokens + counted.completion_tokens
    assert counted.prompt_tokens_details.cached_tokens == counted.prompt_tokens_details.image_tokens
    assert 0 < (counted.prompt_tokens_details.image_tokens or 0) < counted.prompt_tokens


@pytest.mark.parametrize("prompt", ["<CAPTION>", "<OD>"])
def test_log_probabilities_spell_the_answer(client: OpenAI, url: str, prompt: str) -> None:
    _, raw = answer_of(url, prompt)
    choice = client.chat.completions.create(**ask(prompt, logprobs=True, top_logprobs=0)).choices[0]
    chunks = list(client.chat.completions.create(**ask(prompt, logprobs=True), stream=True))
    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    streamed = [token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content or []]
    assert "".join(token.token for token in tokens).strip() == written(raw)
    assert b"".join(bytes(token.bytes or []) for token in tokens).decode().strip() == written(raw)
    assert [token.token for token in streamed] == [token.token for token in tokens]
    assert [token.logprob for token in streamed] == pytest.approx([token.logprob for token in tokens], abs=1e-3)
    assert sum(token.logprob for token in tokens) == pytest.approx(raw["log_probability"], abs=1e-2)


def test_awaited_calls_at_once(url: str) -> None:
    async def run() -> list[str]:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY) as client:

            async def streamed() -> str:
                stream = await client.chat.completions.create(**ask("<OD>"), stream=True)
                return joined([chunk async for chunk in stream])

            whole = client.chat.completions.create(**ask("<OD>"))
            first, second, models = await asyncio.gather(whole, streamed(), client.models.list())
            return [first.choices[0].message.content or "", second, models.data[0].id]

    assert asyncio.run(run()) == [*[written(answer_of(url, "<OD>")[1])] * 2, DEMO]


def test_a_short_answer_ends_by_its_length(client: OpenAI) -> None:
    short = client.chat.completions.create(**ask("<CAPTION>", max_completion_tokens=4))
    longest = client.chat.completions.create(**ask("<CAPTION>", max_tokens=1_000_000, temperature=0, seed=7, user="me"))
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None
    assert short.usage.completion_tokens == 4
    assert (longest.choices[0].message.content or "").startswith(short.choices[0].message.content or "?")


def test_arguments_of_this_project_go_as_extra_body(client: OpenAI, url: str) -> None:
    extra: dict[str, Any] = {"scores": True, "coordinates": "float", "num_beams": 2}
    answer = client.chat.completions.create(**ask("<OD>", response_format=JSON, extra_body=extra))
    found = json.loads(answer.choices[0].message.content or "")["<OD>"]
    expected = answer_of(url, "<OD>", **extra)[0]["<OD>"]
    assert found["bboxes"] == expected["bboxes"]
    assert found["scores"] == pytest.approx(expected["scores"], abs=1e-3)


def test_models(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) >= {DEMO, "florence-2-base"}
    assert listed["florence-2-base"].owned_by == "florence-community"
    assert client.models.retrieve(DEMO) == listed[DEMO]
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("someone/unknown")
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


def test_errors_are_of_the_known_classes(client: OpenAI, url: str) -> None:
    with pytest.raises(openai.BadRequestError, match="above 0 asks for a random answer") as refused:
        client.chat.completions.create(**ask("<OD>", temperature=0.5))
    assert refused.value.param == "temperature"
    assert refused.value.request_id
    with pytest.raises(openai.BadRequestError, match="did you mean <CAPTION>"):
        client.chat.completions.create(**ask("<CAPTIO>"), stream=True)
    with pytest.raises(openai.NotFoundError, match="Unknown model 'gpt-4o'"):
        client.chat.completions.create(**{**ask("<OD>"), "model": "gpt-4o"})
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
        client.embeddings.create(model=DEMO, input="x")
    with pytest.raises(openai.AuthenticationError, match="Authorization: Bearer"):
        client.with_options(api_key="another key").models.list()


def test_plain_http_without_the_package(url: str) -> None:
    body = json.dumps({**ask("<CAPTION>"), "stream": True}).encode()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    with httpx2.stream("POST", f"{url}/v1/chat/completions", content=body, headers=headers) as response:
        events = response.read().decode().split("\n\n")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])


def test_a_picture_in_another_wrapping(client: OpenAI) -> None:
    wrapped = "data:image/png;base64," + base64.encodebytes(SCENE).decode()
    expected = client.chat.completions.create(**ask("<CAPTION>")).choices[0].message.content
    for content in ([picture(wrapped), {"type": "text", "text": "<CAPTION>"}], [{"type": "text", "text": "<CAPTION>"}, picture(wrapped)]):
        answer = client.chat.completions.create(model=DEMO, messages=[{"role": "user", "content": content}])  # type: ignore[arg-type]
        assert answer.choices[0].message.content == expected


def test_the_page_says_what_happens(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python blocks of docs/openai.md, in one session; a ``text`` block right behind one is its output."""
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    blocks = fences((ROOT / "docs" / "openai.md").read_text(encoding="utf-8"))
    pairs = [(block, after) for block, after in zip(blocks, [*blocks[1:], None], strict=True) if block.language == "py"]
    assert len(pairs) >= 4
    for block, after in pairs:
        source = block.content.replace("http://localhost:9001", url).replace('"KEY"', repr(KEY))
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile("\n" * (block.line - 1) + source, "docs/openai.md", "exec"), names)
        assert after is not None
        assert (after.language, after.content) == ("text", output.getvalue())
    names["client"].close()  # type: ignore[attr-defined]


def test_the_call_on_the_landing_page_runs(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scene.png").write_bytes(SCENE)
    monkeypatch.chdir(tmp_path)
    call = python_call(url, DEMO).replace('"KEY"', repr(KEY))
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(call, names)
    names["client"].close()
    assert output.getvalue().strip() == written(answer_of(url, "<CAPTION>")[1])
