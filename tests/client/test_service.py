"""The client as its users have it, against a server that speaks like the incumbent."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Awaitable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence2.client import (
    Answer,
    CallError,
    ConnectionFailed,
    HTTPCallErrorError,
    HTTPClientError,
    HTTPClientMode,
    InferenceConfiguration,
    InferenceHTTPClient,
    InvalidInput,
    InvalidParameter,
    LmmOptions,
    ModelNotSelectedError,
    UnexpectedAnswer,
    WrongClientModeError,
    wire,
)
from florence2.draw import annotate
from florence2.errors import InvalidImage
from florence2.server.http.state import SERVER_NAME
from tests.client.conftest import Call
from tests.client.stub import INFO, REGISTRY, Received, Reply, Stub, caption

KEY = "KEY1234567890"
FAST = InferenceConfiguration(retry_wait_s=0.0)


def test_a_path_as_the_known_client_sends_it(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path, jpeg_bytes: bytes) -> None:
    assert call(client, "infer_lmm", str(jpeg), "florence-2-base", "<CAPTION>") == caption("a dog")
    assert (stub.last.method, stub.last.path) == ("POST", "/infer/lmm")
    assert stub.last.json == {
        "api_key": KEY,
        "model_id": "florence-2-base",
        "prompt": "<CAPTION>",
        "image": {"type": "base64", "value": base64.b64encode(jpeg_bytes).decode()},
    }
    assert stub.last.headers["content-type"] == "application/json"
    assert stub.last.headers["content-length"] == str(len(stub.last.body))
    assert "authorization" not in stub.last.headers
    assert len(stub.received) == 1


def test_hosted_mode_and_header_transport(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    client.select_api_v0()
    call(client, "infer_lmm", jpeg, "m", "<CAPTION>", model_id_in_path=True)
    assert stub.last.path == f"/infer/lmm/m?api_key={KEY}"
    assert "api_key" not in stub.last.json
    client.select_api_v1().configure(InferenceConfiguration(api_key_transport="header"))
    call(client, "infer_lmm", jpeg, "m", "<CAPTION>")
    assert (stub.last.path, stub.last.headers["authorization"]) == ("/infer/lmm", f"Bearer {KEY}")
    assert "api_key" not in stub.last.json


def test_tiles_travel_as_they_are(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    """What the server makes of them: ``tests/server/inference/test_tiles.py``."""
    client._own_servers[stub.url] = True
    call(client, "infer_lmm", jpeg, "m", "<OD>", tiles="2x2", tile_overlap=0.1, tiles_only=True)
    assert [stub.last.json[name] for name in ("tiles", "tile_overlap", "tiles_only")] == ["2x2", 0.1, True]
    call(client, "infer_lmm", jpeg, "m", "<OD>", tiles=640, tile_overlap=None)
    assert stub.last.json["tiles"] == 640
    assert "tile_overlap" not in stub.last.json


def test_options_travel_when_given(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    call(client, "infer_lmm", jpeg, "m", "", max_new_tokens=20, enable_thinking=False, text="dog", scores=True, raw=False, num_beams=None)
    sent = stub.last.json
    assert {name: sent[name] for name in sent.keys() - {"image", "api_key"}} == {
        "model_id": "m",
        "prompt": "",
        "max_new_tokens": 20,
        "enable_thinking": False,
        "text": "dog",
        "scores": True,
        "raw": False,
    }
    with pytest.raises(InvalidParameter, match="did you mean num_beams"):
        call(client, "infer_lmm", jpeg, "m", "<OD>", num_beam=3)
    with pytest.raises(InvalidParameter, match="there are"):
        call(client, "infer_lmm", jpeg, "m", "<OD>", temperature=3)
    with pytest.raises(InvalidParameter, match="on_error"):
        call(client, "infer_lmm", jpeg, "m", "<OD>", on_error="raise")
    assert len(stub.received) == 1


def test_urls_are_fetched_here_unless_told_otherwise(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg_bytes: bytes) -> None:
    url = stub.url + "/dog.jpg?size=1"
    stub.replies = [Reply(302, b"", {"location": stub.url + "/moved.jpg"}), Reply(200, jpeg_bytes)]
    call(client, "infer_lmm", url, "m", "<CAPTION>")
    assert [received.path for received in stub.received] == ["/dog.jpg?size=1", "/moved.jpg", "/infer/lmm"]
    assert KEY not in str(stub.received[:2])
    assert base64.b64decode(stub.last.json["image"]["value"]) == jpeg_bytes
    client.configure(InferenceConfiguration(send_urls=True))
    call(client, "infer_lmm", url, "m", "<CAPTION>")
    assert stub.last.json["image"] == {"type": "url", "value": url}
    assert len(stub.received) == 4


def test_urls_that_lead_nowhere(call: Call, client: InferenceHTTPClient, stub: Stub) -> None:
    client.configure(FAST)
    with pytest.raises(HTTPCallErrorError, match=r"/gone\.jpg can't be fetched: The host answered with status 404") as caught:
        call(client, "infer_lmm", stub.url + "/gone.jpg?token=SECRET", "m", "<CAPTION>")
    assert (caught.value.status_code, caught.value.field, caught.value.code) == (404, "image", "invalid_image")
    assert "SECRET" not in str(caught.value)
    with pytest.raises(InvalidInput, match="can't be fetched: The host could not be reached"):
        call(client, "infer_lmm", "http://127.0.0.1:9/dog.jpg", "m", "<CAPTION>")


@pytest.mark.parametrize("path", ["/a b/ä.jpg?x=y z", "/a%20b/%C3%A4.jpg?x=y%20z"])
def test_urls_with_spaces_and_other_letters(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg_bytes: bytes, path: str) -> None:
    stub.replies = [Reply(200, gzip.compress(jpeg_bytes), {"content-encoding": "gzip", "set-cookie": "a=b"})]
    call(client, "infer_lmm", stub.url + path, "m", "<CAPTION>")
    assert stub.received[0].path == "/a%20b/%C3%A4.jpg?x=y%20z"
    assert base64.b64decode(stub.last.json["image"]["value"]) == jpeg_bytes
    assert "cookie" not in stub.last.headers


def test_a_cookie_of_the_server_stays_away_from_image_hosts(call: Call, stub: Stub, jpeg_bytes: bytes) -> None:
    stub.respond = lambda received: Reply(
        200, caption("a") if received.method == "POST" else jpeg_bytes, {"set-cookie": "session=secret; Path=/", "content-type": "x/y"}
    )
    with InferenceHTTPClient(stub.url) as client:
        for given in (jpeg_bytes, stub.url + "/dog.jpg", jpeg_bytes):
            call(client, "infer_lmm", given, "m", "<CAPTION>")
    assert len(stub.received) == 4
    assert not any("cookie" in received.headers for received in stub.received)


def test_urls_are_fetched_below_a_running_loop(stub: Stub, jpeg_bytes: bytes) -> None:
    stub.replies = [Reply(200, jpeg_bytes), Reply(200, caption("a")), Reply(404, b"")]

    async def notebook() -> None:  # blocking calls within a loop, as in a notebook
        with InferenceHTTPClient(stub.url) as client:
            assert client.infer_lmm(stub.url + "/dog.jpg", "m", "<CAPTION>") == caption("a")
            with pytest.raises(HTTPCallErrorError):
                client.infer_lmm(stub.url + "/dog.jpg", "m", "<CAPTION>")

    asyncio.run(notebook())


def test_misspelt_paths_are_told_before_anything_is_sent(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    with pytest.raises(HTTPClientError, match=r"no file '/nope/x\.jpg'"):
        call(client, "infer_lmm", "/nope/x.jpg", "m", "<CAPTION>")
    with pytest.raises(InvalidInput, match=r"image 1: there is no file") as caught:
        call(client, "infer_lmm", [jpeg, "/nope/x.jpg"], "m", "<CAPTION>")
    assert caught.value.index == 1
    assert stub.received == []


def test_errors_are_the_same_with_and_without_await(client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    body = {"message": "needs a text", "code": "invalid_prompt", "field": "text", "help_url": "http://s/docs/errors"}
    errors = []
    for method in (client.infer_lmm, lambda *arguments: asyncio.run(client.infer_lmm_async(*arguments))):
        stub.replies = [Reply(400, body, {"x-request-id": "r-1"})]
        with pytest.raises(HTTPCallErrorError) as caught:
            method(jpeg, "m", "<OPEN_VOCABULARY_DETECTION>")
        errors.append(caught.value)
    assert vars(errors[0]) == vars(errors[1])
    assert errors[0].api_message == "needs a text"
    assert (errors[0].code, errors[0].field, errors[0].request_id) == ("invalid_prompt", "text", "r-1")


def test_exhausted_tries_end_in_the_servers_error(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    client.configure(FAST)
    stub.replies = [Reply(503, {"message": "Model is temporarily not ready - retry request."}, {"retry-after": "0"})] * 3
    with pytest.raises(CallError, match="temporarily not ready") as caught:
        call(client, "infer_lmm", jpeg, "m", "<CAPTION>")
    assert (caught.value.status_code, caught.value.retry_after) == (503, 0.0)
    assert len(stub.received) == 3
    stub.replies = [Reply(200, b"<html>a proxy's page")]
    with pytest.raises(UnexpectedAnswer, match="proxy"):
        call(client, "infer_lmm", jpeg, "m", "<CAPTION>")
    nobody = InferenceHTTPClient("http://127.0.0.1:9").configure(FAST)
    with pytest.raises(ConnectionFailed):
        call(nobody, "infer_lmm", jpeg, "m", "<CAPTION>")
    nobody.close()


def test_management(call: Call, client: InferenceHTTPClient, stub: Stub) -> None:
    info = call(client, "get_server_info")
    assert (info.name, info.version, info.uuid) == (INFO["name"], INFO["version"], INFO["uuid"])
    assert [model.model_id for model in call(client, "list_loaded_models").models] == ["florence-pretrains/3"]
    call(client, "load_model", "florence-2-base", set_as_default=True)
    assert client.selected_model == "florence-2-base"
    call(client, "unload_model", "another")
    assert client.selected_model == "florence-2-base"
    call(client, "unload_model", "florence-2-base")
    assert client.selected_model is None
    client.select_model("m")
    assert call(client, "load_model", "m").models[0].task_type == "lmm"
    call(client, "unload_all_models")
    assert client.selected_model is None
    assert [f"{received.method} {received.path}" for received in stub.received] == [
        "GET /info",
        f"GET /model/registry?api_key={KEY}",
        "POST /model/add",
        "POST /model/remove",
        "POST /model/remove",
        "POST /model/add",
        "POST /model/clear",
    ]


def test_management_on_hosted_endpoints_and_odd_answers(call: Call, client: InferenceHTTPClient, stub: Stub) -> None:
    stub.replies = [Reply(200, ["odd"]), Reply(200, {"no": "models"}), Reply(401, {"status": 401, "message": "Unauthorized api_key"})]
    with pytest.raises(UnexpectedAnswer, match="a list of 1"):
        call(client, "get_server_info")
    with pytest.raises(UnexpectedAnswer, match="list models"):
        call(client, "list_loaded_models")
    with pytest.raises(CallError, match="Unauthorized api_key"):
        call(client, "load_model", "m", set_as_default=True)
    assert client.selected_model is None
    hosted = InferenceHTTPClient("https://serverless.roboflow.com", KEY)
    for name, arguments in (("list_loaded_models", ()), ("load_model", ("m",)), ("unload_model", ("m",)), ("unload_all_models", ())):
        with pytest.raises(WrongClientModeError):
            call(hosted, name, *arguments)


def test_model_is_named_or_selected(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    with pytest.raises(ModelNotSelectedError, match="select_model"):
        call(client, "infer_lmm", jpeg, prompt="<CAPTION>")
    client.select_model("first")
    with client.use_model("second") as same:
        assert same is client
        call(client, "infer_lmm", jpeg, prompt="<CAPTION>")
    assert stub.last.json["model_id"] == "second"
    call(client, "infer_lmm", jpeg, prompt="<CAPTION>")
    assert stub.last.json["model_id"] == "first"


def test_configuration_for_a_block(client: InferenceHTTPClient) -> None:
    before = client.inference_configuration
    with client.use_configuration(FAST):
        assert client.inference_configuration is FAST
    assert client.inference_configuration is before


def test_mode_for_a_block(client: InferenceHTTPClient) -> None:
    with client.use_api_v0() as same:
        assert same.client_mode is HTTPClientMode.V0
        with client.use_api_v1():
            assert client.client_mode is HTTPClientMode.V1
        assert client.client_mode is HTTPClientMode.V0
    assert client.client_mode is HTTPClientMode.V1


@pytest.mark.parametrize(
    ("given", "environment", "used"),
    [
        ("given", {"FLORENCE2_API_KEY": "own"}, "given"),
        (None, {"FLORENCE2_API_KEY": "own\n"}, "own"),
        ("", {"FLORENCE2_API_KEY": "own"}, None),
        (None, {"FLORENCE2_API_KEY": ""}, None),
        # Keys for others are not sent to whatever address a program names.
        (None, {"API_KEY": "a", "ROBOFLOW_API_KEY": "r", "INFERENCE_API_KEY": "i", "HF_TOKEN": "h"}, None),
        (None, {}, None),
    ],
)
def test_key_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, stub: Stub, jpeg: Path, given: str | None, environment: dict[str, str], used: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with InferenceHTTPClient(stub.url, given) as client:
        client.infer_lmm(jpeg, "m", "<CAPTION>")
    assert stub.last.json["api_key"] == used


def test_constructor_and_its_address(stub: Stub, jpeg: Path) -> None:
    with InferenceHTTPClient.init(stub.url + "/", KEY) as client:
        client.infer_lmm(jpeg, "m", "<CAPTION>")
        assert client.api_url == stub.url
        assert client.client_mode is HTTPClientMode.V1
    assert stub.last.path == "/infer/lmm"
    assert KEY not in repr(client)
    assert InferenceHTTPClient().api_url == "http://localhost:9001"


def test_connections_are_reused(client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    for _ in range(4):
        client.infer_lmm(jpeg, "m", "<CAPTION>")
    assert stub.connections == 1
    client.close()
    client.infer_lmm(jpeg, "m", "<CAPTION>")
    assert stub.connections == 2

    async def several() -> None:
        async with client, client:
            for _ in range(4):
                await client.infer_lmm_async(jpeg, "m", "<CAPTION>")
        await client.infer_lmm_async(jpeg, "m", "<CAPTION>")

    asyncio.run(several())
    assert stub.connections == 4


def test_a_client_that_is_only_dropped_leaves_nothing_open(stub: Stub, jpeg: Path) -> None:
    client = InferenceHTTPClient(stub.url)
    client.infer_lmm(jpeg, "m", "<CAPTION>")
    del client
    gc.collect()  # an open socket would be a ResourceWarning, which fails the test


def test_awaited_and_blocking_methods_are_twins() -> None:
    members = dict(inspect.getmembers(InferenceHTTPClient, inspect.isfunction))
    awaited = [name for name in members if name.endswith("_async")]
    assert len(awaited) == 8
    for name in awaited:
        twin, method = (inspect.signature(members[each]) for each in (name.removesuffix("_async"), name))
        if name == "stream_lmm_async":  # no coroutine, but an iterator of another class
            assert method.replace(return_annotation=twin.return_annotation) == twin
        else:
            assert twin == method
            assert inspect.iscoroutinefunction(members[name])


def test_every_option_is_documented() -> None:
    assert [name for name in LmmOptions.__annotations__ if f"        {name}: " not in (LmmOptions.__doc__ or "")] == []


def test_typed_answers(call: Call, client: InferenceHTTPClient, jpeg: Path) -> None:
    answer = call(client, "infer_lmm", jpeg, "m", "<CAPTION>", typed=True)
    assert isinstance(answer, Answer)
    assert (answer.task, answer.text, answer.image_size, answer.time_s) == ("<CAPTION>", "a dog", (64, 48), 0.25)


def test_typed_answers_are_drawn_on_their_file(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path, tmp_path: Path) -> None:
    found = {"<OD>": {"bboxes": [[10, 10, 40, 30]], "labels": ["dog"]}}
    reply = {"inference_id": "1", "time": 0.1, "image": {"width": 64, "height": 48}, "response": found}
    stub.replies = [Reply(200, reply)] * 4
    answer = call(client, "infer_lmm", jpeg, "m", "<OD>", typed=True)
    wanted = np.asarray(annotate(jpeg, answer))
    assert np.array_equal(np.asarray(answer.annotate()), wanted)
    with Image.open(jpeg) as picture:
        for given in (picture, np.asarray(picture)):  # in memory: not held, so that answers about frames of a video stay small
            answer = call(client, "infer_lmm", given, "m", "<OD>", typed=True)
            with pytest.raises(InvalidImage, match="pass the picture"):
                answer.annotate()
            assert np.array_equal(np.asarray(answer.annotate(picture)), wanted)
        exif = Image.Exif()
        exif[0x0112] = 3
        picture.save(tmp_path / "turned.png", exif=exif)
    as_stored = call(client, "infer_lmm", Image.open(tmp_path / "turned.png"), "m", "<OD>", typed=True)
    assert np.array_equal(np.asarray(as_stored.annotate(Image.open(tmp_path / "turned.png"))), wanted)


def test_importing_the_client_brings_no_torch() -> None:
    code = "import sys, florence2.client; print([name for name in ('torch', 'cv2', 'pydantic', 'fastapi') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert ran.stdout.strip() == "[]"


# Lists


def numbered(received: Received) -> Reply:
    """A caption that says which image it was."""
    image = received.json["image"]
    answers = [caption(sha256(one["value"].encode()).hexdigest()) for one in (image if isinstance(image, list) else [image])]
    return Reply(200, answers if isinstance(image, list) else answers[0], delay_s=0.01)


def squares(count: int) -> list[Any]:
    return [np.full((16, 16, 3), 7 * place, np.uint8) for place in range(count)]


@pytest.mark.slow
def test_lists_give_lists_in_order(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path, picture: Image.Image) -> None:
    stub.respond = numbered
    given = [str(jpeg), picture, jpeg.read_bytes(), *squares(9)]
    alone = [client.infer_lmm(one, "m", "<CAPTION>") for one in given]
    assert len({json.dumps(answer) for answer in alone}) == 10  # path, picture and bytes become the same file
    stub.most_under_way = 0
    assert call(client, "infer_lmm", given, "m", "<CAPTION>") == alone
    assert call(client, "infer_lmm", tuple(given[:2]), "m", "<CAPTION>") == alone[:2]
    assert 1 < stub.most_under_way <= 4


def test_empty_and_short_lists(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    assert call(client, "infer_lmm", [], "m", "<CAPTION>", progress=True) == []
    assert stub.received == []
    assert call(client, "infer_lmm", [jpeg], "m", "<CAPTION>") == [caption("a dog")]
    assert isinstance(stub.last.json["image"], dict)


def test_batches_travel_as_lists(call: Call, client: InferenceHTTPClient, stub: Stub) -> None:
    stub.respond = numbered
    alone = [client.infer_lmm(one, "m", "<CAPTION>") for one in squares(5)]
    stub.received.clear()
    client.configure(InferenceConfiguration(max_batch_size=2, max_concurrent_requests=1))
    assert call(client, "infer_lmm", squares(5), "m", "<CAPTION>") == alone
    assert [len(received.json["image"]) for received in stub.received] == [2, 2, 2]
    assert [isinstance(received.json["image"], list) for received in stub.received] == [True, True, False]
    assert not any("on_error" in received.json for received in stub.received)


@pytest.mark.parametrize(("name", "is_told"), [("florence2 server", True), ("Roboflow Inference Server", False), (None, False)])
def test_fields_of_our_own_go_to_our_own_servers(
    call: Call, client: InferenceHTTPClient, stub: Stub, name: str | None, is_told: bool
) -> None:
    about = Reply(200, {**INFO, "name": name}) if name else Reply(404, {"detail": "Not Found"})
    stub.respond = lambda received: about if received.path == "/info" else numbered(received)
    client.configure(InferenceConfiguration(max_batch_size=2, max_concurrent_requests=1))
    call(client, "infer_lmm", squares(4), "m", "<CAPTION>", on_error="item")
    asked = [received for received in stub.received if received.path != "/info"]
    assert [received.json.get("on_error") for received in asked] == ["item" if is_told else None] * 2
    assert len(stub.received) == (3 if name else 4)  # asked once where there is an answer
    assert SERVER_NAME == wire.OWN_SERVER


def test_tiles_are_not_asked_of_a_server_that_would_ignore_them(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    """The answer would look like one in tiles. A server that says nothing of itself may be this project's, behind a proxy."""
    about = [Reply(200, {**INFO, "name": "Roboflow Inference Server"}), Reply(404, {}), Reply(200, {**INFO, "name": SERVER_NAME})]
    for info, num_asked in zip(about, (0, 1, 1), strict=True):
        stub.respond = lambda received, info=info: info if received.path == "/info" else Reply(200, caption("a"))
        stub.received.clear()
        client._own_servers.clear()
        if num_asked:
            call(client, "infer_lmm", jpeg, "m", "<OD>", tiles="2x2")
        else:
            with pytest.raises(InvalidParameter, match=r"^tiles are known to servers of florence2 alone, and .* is none") as caught:
                call(client, "infer_lmm", jpeg, "m", "<OD>", tiles="2x2")
            assert caught.value.field == "tiles"
        assert sum(received.path != "/info" for received in stub.received) == num_asked


def test_an_error_names_its_image_within_a_batch(call: Call, client: InferenceHTTPClient, stub: Stub) -> None:
    client.configure(InferenceConfiguration(max_batch_size=3, max_concurrent_requests=1))
    answers = [Reply(200, [caption("a")] * 3), Reply(400, {"message": "image[1]: damaged", "field": "image[1]"})]
    stub.replies = list(answers)
    with pytest.raises(CallError, match=r"^image 4: damaged") as caught:
        call(client, "infer_lmm", squares(6), "m", "<CAPTION>")
    assert (caught.value.index, caught.value.api_message) == (4, "damaged")


def test_one_bad_image_fails_the_list_and_names_itself(call: Call, client: InferenceHTTPClient, stub: Stub) -> None:
    client.configure(InferenceConfiguration(max_concurrent_requests=1))
    stub.replies = [Reply(200, caption("a")), Reply(400, {"message": "bad image"})]
    with pytest.raises(CallError, match="image 1: bad image") as caught:
        call(client, "infer_lmm", squares(5), "m", "<CAPTION>")
    assert (caught.value.index, len(stub.received)) == (1, 2)


def test_errors_in_their_images_place(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    client.configure(InferenceConfiguration(max_concurrent_requests=1))
    stub.replies = [Reply(200, caption("a")), Reply(400, {"message": "bad image"}), Reply(200, caption("c"))]
    given = [jpeg, jpeg, "/nope/x.jpg", jpeg]
    first, second, third, fourth = call(client, "infer_lmm", given, "m", "<CAPTION>", on_error="item", typed=True)
    assert (first.text, fourth.text) == ("a", "c")
    assert isinstance(second, CallError)
    assert isinstance(third, InvalidInput)
    assert (second.index, third.index) == (1, 2)
    assert (second.api_message, second.status_code) == ("bad image", 400)


def test_errors_within_a_batch(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path, tmp_path: Path) -> None:
    client.configure(InferenceConfiguration(max_concurrent_requests=1, max_batch_size=3))
    client._own_servers[stub.url] = True
    item = {"error": {"message": "damaged", "code": "invalid_image", "field": "image", "help_url": "h", "status": 400}}
    empty = tmp_path / "empty.jpg"
    empty.touch()
    given = [jpeg, empty, jpeg, jpeg, jpeg, jpeg]
    stub.replies = [Reply(200, [caption("a"), item]), Reply(500, {"message": "Internal error."})]
    outcomes = call(client, "infer_lmm", given, "m", "<CAPTION>", on_error="item")
    assert outcomes[0] == caption("a")
    assert [type(outcome) for outcome in outcomes[1:]] == [InvalidInput, CallError, CallError, CallError, CallError]
    assert [outcome.index for outcome in outcomes[1:]] == [1, 2, 3, 4, 5]
    assert (outcomes[2].code, outcomes[2].field, outcomes[2].status_code) == ("invalid_image", "image", 400)
    stub.replies = [Reply(200, [caption("a"), caption("b"), item])]
    with pytest.raises(CallError, match="image 2: damaged"):
        call(client, "infer_lmm", [jpeg] * 3, "m", "<CAPTION>")
    stub.replies = [Reply(200, [caption("a")])]
    with pytest.raises(UnexpectedAnswer, match="each of 3 images, got a list of 1"):
        call(client, "infer_lmm", [jpeg] * 3, "m", "<CAPTION>")


def test_progress_is_told(call: Call, client: InferenceHTTPClient, jpeg: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, int]] = []
    given = [jpeg, "/nope/x.jpg", jpeg, jpeg]
    call(client, "infer_lmm", given, "m", "<CAPTION>", on_error="item", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    call(client, "infer_lmm", [jpeg] * 3, "m", "<CAPTION>", progress=True)
    captured = capfd.readouterr()
    assert "3/3" in captured.err
    assert captured.out == ""


def test_scaled_images_come_back_in_their_own_coordinates(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    small = {**caption(""), "image": {"width": 32, "height": 24}, "response": {"<OD>": {"bboxes": [[0, 0, 15, 11]], "labels": ["red"]}}}
    stub.replies = [Reply(200, small)]
    client.configure(InferenceConfiguration(client_downsizing_disabled=False, default_max_input_size=32))
    answer = call(client, "infer_lmm", jpeg, "m", "<OD>", region=[32, 24, 64, 48], prompts=[{"prompt": "p", "region": [2, 2, 4, 4]}, "q"])
    assert answer["image"] == {"width": 64, "height": 48}
    assert answer["response"] == {"<OD>": {"bboxes": [[1, 1, 31, 23]], "labels": ["red"]}}
    assert stub.last.json["region"] == [16.0, 12.0, 32.0, 24.0]
    assert stub.last.json["prompts"] == [{"prompt": "p", "region": [1.0, 1.0, 2.0, 2.0]}, "q"]


def test_scaled_images_with_a_region_do_not_share_a_request(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path) -> None:
    settings = InferenceConfiguration(client_downsizing_disabled=False, default_max_input_size=32, max_batch_size=4)
    client.configure(settings)
    large = np.zeros((480, 640, 3), np.uint8)
    call(client, "infer_lmm", [jpeg, large], "m", "<REGION_TO_OCR>", region=(0, 0, 64, 48))
    assert [received.json["region"] for received in stub.received] == [[0.0, 0.0, 32.0, 24.0], [0.0, 0.0, 3.2, 2.4]]
    stub.received.clear()
    stub.replies = [Reply(200, [caption("a"), caption("b")])]
    call(client, "infer_lmm", [jpeg, large], "m", "<REGION_TO_OCR>", region="<loc_1><loc_2><loc_3><loc_4>")
    assert len(stub.received) == 1


def test_many_awaited_calls_at_once(stub: Stub, jpeg: Path) -> None:
    stub.respond = numbered

    async def all_of_them() -> list[Any]:
        async with InferenceHTTPClient(stub.url) as client:
            calls: list[Awaitable[Any]] = [client.infer_lmm_async(one, "m", "<CAPTION>") for one in squares(12)]
            return await asyncio.gather(*calls)

    answers = asyncio.run(all_of_them())
    assert len({answer["response"]["<CAPTION>"] for answer in answers}) == 12


def test_registry_of_the_stub_is_the_contracts() -> None:
    assert set(REGISTRY["models"][0]) >= {"model_id", "task_type", "batch_size", "input_height", "input_width"}
