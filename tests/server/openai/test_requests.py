"""What a chat request asks: which text, region and picture are read of its messages, and what is refused, under which name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fixtures.fake_engine import FakeEngine
from florence2.server.openai.arguments import OWN, REFUSED, WITHOUT_EFFECT, as_markdown
from florence2.server.openai.schemas import ChatRequest
from florence2.url_fetch import Fetcher
from florence2.url_policy import FetchError
from tests.docs.markdown import ROOT
from tests.server.fakes import client_of, image_bytes
from tests.server.openai.chat import chat, data_uri, picture, user

pytestmark = pytest.mark.anyio
PATH = "/v1/chat/completions"
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}


async def asked(*bodies: dict[str, Any]) -> list[dict[str, Any]]:
    """What reached the engine for each body."""
    engine = FakeEngine()
    async with client_of(engine) as client:
        for body in bodies:
            answer = await client.post(PATH, json=body)
            assert answer.status_code == 200, answer.text
    return engine.asked


async def refused(body: Any, **settings: Any) -> tuple[int, str, str | None, str]:
    """Status, code, argument and message of a refusal."""
    async with client_of(**settings) as client:
        content = body if isinstance(body, (str, bytes)) else json.dumps(body)
        response = await client.post(PATH, content=content, headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "help_url"}
    return response.status_code, error["code"], error["param"], error["message"]


@pytest.mark.parametrize(
    "messages",
    [
        [user("<OD>", picture())],
        [user(picture(), "<OD>")],
        [user("<OD>\n", {"type": "image_url", "image_url": {"url": data_uri(), "detail": "low"}})],
        [user(" ", "<OD>", picture())],
        [user(picture(data_uri().replace("image/png", "IMAGE/PNG;charset=x")), "<OD>")],
        [user("<OD>", {"type": "image_url", "image_url": data_uri()})],
        [{"role": "system", "content": " "}, user("<OD>", picture())],
        [{"role": "developer", "content": []}, user("<OD>", picture())],
        [user("<CAPTION>", picture()), {"role": "assistant", "content": "a dog"}, {"role": "user", "content": "<OD>"}],
        [user("what?", picture("data:,x")), {"role": "assistant", "content": None}, user(picture()), user("<OD>")],
    ],
)
async def test_the_last_message_is_the_question(messages: list[Any]) -> None:
    (one,) = await asked(chat(*messages))
    assert (one["prompt"], one["region"]) == ("<OD>", None)


async def test_text_and_region_behind_the_tag_or_apart() -> None:
    region = [10, 20, 30, 40]
    tags = ("<REGION_TO_CATEGORY>", "<REGION_TO_OCR>")
    bodies = [
        *(chat(f"{tags[0]}{written}") for written in ("10,20,30,40", " 10 20 30 40 ", "\n[10, 20.0, 30, 40]", "10;20;30;40")),
        chat(user(tags[0], "10,20,30,40", picture())),
        chat(tags[0], region=region),
        chat(tags[0], region="<loc_1><loc_2><loc_3><loc_4>"),
        chat(f"{tags[1]}<loc_1><loc_2><loc_3><loc_4>"),
        chat("<CAPTION_TO_PHRASE_GROUNDING>a red car"),
        chat("<CAPTION_TO_PHRASE_GROUNDING>", text="a red car"),
        chat("  what is this?\n"),
        chat("<MINE> x", allow_unknown_tag=True),
    ]
    found = await asked(*bodies)
    assert [one["region"] for one in found[:6]] == [region] * 6
    assert found[6]["prompt"].endswith("<loc_1><loc_2><loc_3><loc_4>")
    assert found[7]["prompt"] == "<REGION_TO_OCR><loc_1><loc_2><loc_3><loc_4>"
    assert [one["sentence"] for one in found[8:]] == [*["Locate the phrases in the caption: a red car"] * 2, "what is this?", "<MINE> x"]


async def test_options_reach_the_engine() -> None:
    found = await asked(
        chat("<OD>"),
        chat("<OD>", max_tokens=5),
        chat("<OD>", max_completion_tokens=7, max_tokens=7, num_beams=3, no_repeat_ngram_size=2),
        chat("<OD>", scores=True, response_format={"type": "json_object"}),
        chat("<OD>", max_tokens=None, tools=None, nothing_such=None),
    )
    names = ("max_new_tokens", "num_beams", "no_repeat_ngram_size", "scores")
    options = [{name: one[name] for name in names if name in one} for one in found]
    assert options == [{}, {"max_new_tokens": 5}, {"max_new_tokens": 7, "num_beams": 3, "no_repeat_ngram_size": 2}, {"scores": True}, {}]


async def test_arguments_without_effect_and_neutral_ones_pass() -> None:
    values: dict[str, Any] = {name: {"any": ["thing"]} for name in WITHOUT_EFFECT}
    neutral = [{name: value} for name, argument in REFUSED.items() for value in argument.neutral]
    assert len(await asked(chat("<OD>", **values), *(chat("<OD>", **one) for one in neutral))) == 1 + len(neutral)


@pytest.mark.parametrize("name", REFUSED)
async def test_what_would_change_the_answer_is_refused_by_name(name: str) -> None:
    values = {"temperature": 0.7, "top_p": 0.9, "n": 2, "stop": ["."], "tools": [{"type": "function", "function": {"name": "f"}}]}
    status, code, param, message = await refused(chat("<OD>", **{name: values.get(name, "other")}))
    assert (status, code, param) == (400, "unsupported_argument", name)
    assert message.startswith(name)
    assert "leave it out" in message


@pytest.mark.parametrize(
    ("body", "code", "param", "says"),
    [
        (chat("<OD>", topp=1), "unsupported_argument", "topp", "did you mean top_p?"),
        (chat("<OD>", response_format=SCHEMA), "unsupported_argument", "response_format", "json_object"),
        (chat("<OD>", scores=True), "unsupported_argument", "scores", "json_object"),
        (chat("<OD>", max_tokens=0), "invalid_request", "max_tokens", "greater than or equal to 1"),
        (chat("<OD>", max_tokens="many"), "invalid_request", "max_tokens", "integer"),
        (chat("<OD>", max_tokens=1, max_completion_tokens=2), "invalid_request", "max_tokens", "one of them"),
        (chat("<OD>", logprobs="yes"), "invalid_request", "logprobs", "boolean"),
        (chat("<OD>", num_beams=99), "invalid_option", "num_beams", "from 1 to 16"),
        ({"messages": []}, "invalid_request", "model", "Field required; name one that GET /v1/models lists"),
        ({"model": "florence-2-base"}, "invalid_request", "messages", 'Field required; send [{"role": "user"'),
        (chat("<OD>", response_format="json_object"), "invalid_request", "response_format", 'send {"type": "json_object"}'),
        (chat(), "invalid_request", "messages", "empty"),
        (chat({"content": "x"}), "invalid_request", "messages[0].role", "Field required"),
        (chat(5), "invalid_request", "messages[0]", "object"),
        (chat({"role": "wizard", "content": "x"}), "invalid_request", "messages[0].role", "user, assistant, system"),
        (chat("<OD>", {"role": "assistant", "content": "x"}), "invalid_request", "messages[1]", "must be the user's"),
        (chat({"role": "system", "content": "Be nice."}, "<OD>"), "unsupported_argument", "messages[0]", "no instructions"),
        (chat({"role": "tool", "content": "x", "tool_call_id": "1"}, "<OD>"), "unsupported_argument", "messages[0].role", "no tools"),
        (chat(user(picture())), "invalid_prompt", "messages[0].content", "<CAPTION>"),
        (chat({"role": "user", "content": "<OD>"}), "invalid_image", "messages", "no picture"),
        (chat({"role": "user", "content": 5}), "invalid_request", "messages[0].content", "a number"),
        (chat({"role": "user", "content": ["<OD>"]}), "invalid_request", "messages[0].content[0]", "object"),
        (chat(user({"type": "text"}, picture())), "invalid_request", "messages[0].content[0].text", "null"),
        (chat(user("<OD>", {"type": "image_url"})), "invalid_request", "messages[0].content[1].image_url", "null"),
        (chat(user("<OD>", picture(5))), "invalid_request", "messages[0].content[1].image_url.url", "number"),
        (chat(user("<OD>", {"type": "input_audio"})), "unsupported_argument", "messages[0].content[1].type", "input_audio"),
        (chat(user("<OD>", picture(), picture())), "invalid_image", "messages[0].content[2].image_url", "one picture at a time"),
        (chat("<OD>x"), "invalid_prompt", "messages", "takes no text"),
        (chat("<OD>", text="x"), "invalid_prompt", "text", "takes no text"),
        (chat("<CAPTIO>"), "unknown_task", "messages", "did you mean <CAPTION>"),
        (chat("<REGION_TO_OCR>1,2,3"), "invalid_region", "messages", "four numbers"),
        (chat("<REGION_TO_OCR>1,2,3,4000"), "invalid_region", "messages", "64 x 48"),
        (chat("<REGION_TO_OCR>", region=[1, 2, 3, 4000]), "invalid_region", "region", "64 x 48"),
        (chat("word " * 300), "context_length_exceeded", "messages", "too long"),
        (chat("word " * 3000), "context_length_exceeded", "messages", "8192 characters"),
    ],
)  # fmt: skip
async def test_mistakes_are_named(body: Any, code: str, param: str, says: str) -> None:
    status, found, where, message = await refused(body)
    assert (status, found, where) == (400, code, param), message
    assert says in message


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "got an empty text"),
        ("data:image/png;base64", "comma"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64,%%%", "no base64"),
        (data_uri(b"%PDF-1.7"), "PDF"),
        (data_uri(image_bytes()[:60]), "truncated"),
        ("http://example.com/a.png", "https://"),
        ("https://127.0.0.1/a.png", "public domain"),
        ("https://localhost/a.png", "public domain"),
        ("file:///etc/passwd", "https://"),
        ("scene.png", "data:image/png;base64"),
        (data_uri().partition(",")[2], "bare base64"),
        ("https://", "https://host/path"),
    ],
)
async def test_pictures_that_can_not_be_had(url: str, says: str) -> None:
    status, code, param, message = await refused(chat(user("<OD>", picture(url))))
    assert (status, code, param) == (400, "invalid_image", "messages[0].content[1].image_url"), message
    assert says in message


async def test_pictures_by_url_come_through_the_safe_fetcher(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []

    async def fetch(self: Fetcher, url: str) -> bytes:
        fetched.append(url)
        if url.endswith("large.png"):
            raise FetchError("too_large", "It holds more than 5 bytes.")
        return image_bytes()

    monkeypatch.setattr(Fetcher, "fetch", fetch)
    (one,) = await asked(chat(user("<OD>", picture("https://example.com/a.png"))))
    assert (one["prompt"], fetched) == ("<OD>", ["https://example.com/a.png"])
    status, code, _, message = await refused(chat(user("<OD>", picture("https://example.com/large.png"))))
    assert (status, code) == (413, "image_too_large")
    assert message.endswith("it holds more than 5 bytes.")


async def test_hostile_bodies() -> None:
    many = chat(user(*["a"] * 10_000, picture()))
    assert (await refused(many))[:3] == (400, "context_length_exceeded", "messages")
    for body in ("", "[]", "{", "null", '{"model": ' * 500, b"\xff", '{"model": "m", "messages": ' + "[" * 5000 + "]" * 5000 + "}"):
        assert (await refused(body))[:2] == (400, "invalid_request"), body[:20]
    nan = json.dumps(chat("<OD>", temperature=float("nan")))
    assert (await refused(nan))[:3] == (400, "unsupported_argument", "temperature")
    huge = json.dumps(chat("<OD>")).replace('"model"', f'"max_tokens": {"9" * 5000}, "model"', 1)
    assert (await refused(huge))[0] in (200, 400)
    assert (await refused(chat(user("<OD>", picture("data:," + "A" * 3000))), max_body_bytes=2000))[:2] == (413, "body_too_large")
    assert (await refused(chat("<OD>\ud800")))[0] == 400
    assert (await refused(chat("<OD>") | {"model": "\ud800"}))[0] in (400, 404)


async def test_forms_of_the_key() -> None:
    key = "0123456789abcdef"
    async with client_of(api_keys=[key]) as client:
        for headers, status in (
            ({}, 401),
            ({"authorization": "Bearer"}, 401),
            ({"authorization": "Bearer wrong"}, 401),
            ({"authorization": f"Basic {key}"}, 401),
            ({"authorization": f"Bearer {key}"}, 200),
        ):
            answers = [await client.post(PATH, json=chat("<OD>"), headers=headers), await client.get("/v1/models", headers=headers)]
            assert [answer.status_code for answer in answers] == [status] * 2
            if status == 401:
                assert answers[0].json()["error"]["code"] == "invalid_api_key"
                assert answers[0].headers["www-authenticate"] == "Bearer"


async def test_other_media_and_paths() -> None:
    async with client_of() as client:
        plain = await client.post(PATH, content="{}", headers={"content-type": "text/plain"})
        packed = await client.post(PATH, content="{}", headers={"content-type": "application/json", "content-encoding": "gzip"})
        missing = await client.post("/v1/embeddings", json={})
        wrong = await client.get(PATH)
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in (plain, packed, missing, wrong)] == [
        *[(415, "unsupported_media_type")] * 2,
        (404, "not_found"),
        (405, "method_not_allowed"),
    ]
    assert "/v1/chat/completions" in missing.json()["error"]["message"]


def test_the_table_of_arguments_has_each_once() -> None:
    names = [line.split("`")[1] for line in as_markdown().splitlines()[2:]]
    assert len(names) == len(set(names)) == len(ChatRequest.model_fields) + len(WITHOUT_EFFECT) + len(REFUSED)


def test_every_argument_of_the_official_client_is_known() -> None:
    from openai.types.chat.completion_create_params import CompletionCreateParamsBase, CompletionCreateParamsStreaming

    known = {*ChatRequest.model_fields, *WITHOUT_EFFECT, *REFUSED}
    theirs = {*CompletionCreateParamsBase.__annotations__, *CompletionCreateParamsStreaming.__annotations__}
    assert theirs == known - set(OWN)


async def test_models_and_who_publishes_them() -> None:
    models = {"mine": str(ROOT), "florence-2-base": "someone/else", "large": "florence-2-large@main"}
    async with client_of(models=models, loadable="aliases") as client:
        listed = (await client.get("/v1/models")).json()
        also_listed = (await client.get("/v1/models/")).json()
        by_another_name = (await client.get("/v1/models/florence-pretrains/2")).json()
        escaped = (await client.get("/v1/models/florence-pretrains%2F2")).json()
        unknown = await client.get("/v1/models/a/b")
    owners = {entry["id"]: entry["owned_by"] for entry in listed["data"]}
    assert owners == {
        "florence-2-demo": "florence2",
        "mine": "local",
        "florence-2-base": "someone",
        "large": "florence-community",
        **dict.fromkeys(("florence-2-large", "florence-2-base-ft", "florence-2-large-ft"), "florence-community"),
    }
    assert listed == also_listed
    assert by_another_name == escaped == next(entry for entry in listed["data"] if entry["id"] == "florence-2-large")
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "model")


async def test_the_description_has_requests_answers_and_errors() -> None:
    async with client_of() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    route = paths[PATH]["post"]
    fields = route["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(fields) == set(ChatRequest.model_fields)
    assert route["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("Completion")
    assert "[DONE]" in route["responses"]["200"]["content"]["text/event-stream"]["schema"]["description"]
    assert route["responses"]["4XX"]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorAnswer")
