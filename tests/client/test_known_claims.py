"""What the known client's own unit tests claim, as far as it concerns this model, asked of ours in our own words.

What differs on purpose has its row in ``docs/compatibility.md``. Claims about other kinds of models (``infer``, OCR, CLIP, SAM, depth,
video), workflows, streams, WebRTC, gathered processing times, regions and drawings concern nothing that is here. URLs of images have a file
of their own.
"""

from __future__ import annotations

import base64
import contextvars
import io
import json
import threading
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence2.client import (
    ApiKeyTransport,
    EncodingError,
    HTTPCallErrorError,
    HTTPClientError,
    HTTPClientMode,
    HTTPServerConnectionError,
    InferenceConfiguration,
    InferenceHTTPClient,
    InvalidInputFormatError,
    InvalidParameterError,
    ModelDescription,
    ModelNotInitializedError,
    RegisteredModels,
    ServerInfo,
    WrongClientModeError,
    configuration,
)
from florence2.client.connection import Blocking, run_blocking
from florence2.client.http_clients import blocking_client
from tests.client.conftest import Call
from tests.client.stub import Received, Reply, Stub, caption

KEY = "KEY1234567890"
FAST = InferenceConfiguration(retry_wait_s=0.0)
MANAGEMENT: list[tuple[str, tuple[str, ...]]] = [
    ("list_loaded_models", ()),
    ("load_model", ("some/1",)),
    ("unload_model", ("some/1",)),
    ("unload_all_models", ()),
    ("get_model_description", ("some/1",)),
]
managing = pytest.mark.parametrize(("name", "arguments"), MANAGEMENT, ids=[name for name, _ in MANAGEMENT])
SOME = {"model_id": "some/1", "task_type": "lmm"}


def listed(*models: dict[str, Any]) -> Reply:
    return Reply(200, {"models": list(models)})


# The client


@pytest.mark.parametrize(
    ("url", "mode"),
    [(f"https://{name}.roboflow.com", HTTPClientMode.V0) for name in ("detect", "outline", "classify", "infer")]
    + [("http://127.0.0.1:9090", HTTPClientMode.V1), ("https://some.com", HTTPClientMode.V1)],
)
def test_the_mode_is_told_by_the_host(url: str, mode: HTTPClientMode) -> None:
    assert InferenceHTTPClient(url, KEY).client_mode is mode
    assert InferenceHTTPClient.init(api_url=url, api_key=KEY).client_mode is mode


def test_what_is_set_stays_and_what_is_used_goes(client: InferenceHTTPClient) -> None:
    settings = InferenceConfiguration(source="s")
    before = client.inference_configuration
    blocks: list[tuple[AbstractContextManager[InferenceHTTPClient], str, object, object]] = [
        (client.use_configuration(inference_configuration=settings), "inference_configuration", settings, before),
        (client.use_model(model_id="some/1"), "selected_model", "some/1", None),
        (client.use_api_v0(), "client_mode", HTTPClientMode.V0, HTTPClientMode.V1),
    ]
    for block, name, within, after in blocks:
        with block as same:
            assert same is client
            assert getattr(client, name) is within
        assert getattr(client, name) is after
    with pytest.raises(KeyError), client.use_configuration(settings), client.use_model("m"), client.use_api_v0():
        raise KeyError
    assert (client.inference_configuration, client.selected_model, client.client_mode) == (before, None, HTTPClientMode.V1)
    assert client.configure(inference_configuration=settings).select_model(model_id="some/1").select_api_v0() is client
    assert (client.inference_configuration, client.selected_model, client.client_mode) == (settings, "some/1", HTTPClientMode.V0)
    assert client.select_api_v1().client_mode is HTTPClientMode.V1


def test_settings_are_replaced_as_a_whole(client: InferenceHTTPClient) -> None:
    client.configure(InferenceConfiguration(api_key_transport="header")).configure(InferenceConfiguration(max_batch_size=2))
    assert client.inference_configuration.transport is ApiKeyTransport.LEGACY
    with pytest.raises(InvalidParameterError):
        InferenceConfiguration(api_key_transport="invalid")


def test_no_transport_of_the_key_is_warned_of(call: Call, client: InferenceHTTPClient) -> None:
    for transport in (None, "legacy", "header", "both"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call(client.configure(InferenceConfiguration(api_key_transport=transport)), "list_loaded_models")


@pytest.mark.parametrize(("switch", "is_told"), [("true", False), ("True", False), ("false", True), (None, True)])
def test_warnings_are_switched_off_by_the_known_variable(monkeypatch: pytest.MonkeyPatch, switch: str | None, is_told: bool) -> None:
    monkeypatch.setattr(configuration, "_WARNED", set())
    monkeypatch.delenv("INFERENCE_WARNINGS_DISABLED", raising=False)
    if switch:
        monkeypatch.setenv("INFERENCE_WARNINGS_DISABLED", switch)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert InferenceConfiguration(iou_threshold=0.5).iou_threshold == 0.5
    assert len(told) == is_told


def test_numbers_that_are_more_than_can_be_are_taken() -> None:
    settings = InferenceConfiguration(max_batch_size=5000, max_concurrent_requests=5000)
    assert (settings.max_batch_size, settings.max_concurrent_requests) == (5000, 1000)


# Models


@managing
def test_hosted_endpoints_manage_no_models(
    call: Call, client: InferenceHTTPClient, stub: Stub, name: str, arguments: tuple[str, ...]
) -> None:
    with client.use_api_v0(), pytest.raises(WrongClientModeError):
        call(client, name, *arguments)
    assert stub.received == []


@managing
def test_errors_of_management_change_nothing(
    call: Call, client: InferenceHTTPClient, stub: Stub, name: str, arguments: tuple[str, ...]
) -> None:
    client.select_model("chosen")
    stub.replies = [Reply(500, {"message": "Internal error."})]
    with pytest.raises(HTTPCallErrorError) as caught:
        call(client, name, *arguments, **({"set_as_default": True} if name == "load_model" else {}))
    assert (caught.value.status_code, caught.value.api_message) == (500, "Internal error.")
    assert client.selected_model == "chosen"
    assert len(stub.received) == 1


@managing
def test_models_come_as_values(call: Call, client: InferenceHTTPClient, stub: Stub, name: str, arguments: tuple[str, ...]) -> None:
    stub.replies = [listed({**SOME, "batch_size": "batch"})]
    some = ModelDescription(model_id="some/1", task_type="lmm", batch_size="batch")
    assert call(client, name, *arguments) == (some if name == "get_model_description" else RegisteredModels(models=[some]))
    stub.replies = [listed()]
    if name != "get_model_description":
        assert call(client, name, *arguments) == RegisteredModels(models=[])


@pytest.mark.parametrize(
    ("transport", "in_place", "in_header"), [(None, True, False), ("legacy", True, False), ("both", True, True), ("header", False, True)]
)
def test_the_key_goes_where_the_transport_says(
    call: Call, client: InferenceHTTPClient, stub: Stub, transport: str | None, in_place: bool, in_header: bool
) -> None:
    client.configure(InferenceConfiguration(api_key_transport=transport))
    call(client, "list_loaded_models")
    call(client, "load_model", model_id="some/1")
    assert stub.received[0].path == "/model/registry" + (f"?api_key={KEY}" if in_place else "")
    assert stub.received[1].json == {"model_id": "some/1", **({"api_key": KEY} if in_place else {})}
    assert {received.headers.get("authorization") for received in stub.received} == {f"Bearer {KEY}" if in_header else None}


@pytest.mark.parametrize(
    ("selected", "unloaded", "left"),
    [
        ("some/1", "some/1", None),
        ("florence-2-base", "florence-2-base", None),
        ("florence-pretrains/3", "florence-2-base", None),
        ("florence-2-large", "florence-pretrains/4", None),
        ("florence-2-large", "florence-2-base", "florence-2-large"),
        ("some/1", "some/2", "some/1"),
        (None, "some/1", None),
    ],
)
def test_an_unloaded_model_is_not_selected(
    call: Call, client: InferenceHTTPClient, stub: Stub, selected: str | None, unloaded: str, left: str | None
) -> None:
    if selected:
        call(client, "load_model", selected, set_as_default=True)
    call(client, "unload_model", model_id=unloaded)
    assert client.selected_model == left
    assert stub.last.json == {"model_id": unloaded}


@pytest.mark.parametrize(
    ("asked", "before", "after", "requests"),
    [
        ("some/1", [SOME], [], ["/model/registry"]),
        ("florence-2-base", [{"model_id": "florence-pretrains/3", "task_type": "lmm"}], [], ["/model/registry"]),
        ("by-alias", [{**SOME, "request_aliases": ["by-alias"]}], [], ["/model/registry"]),
        ("some/1", [{"model_id": "some/2", "task_type": "lmm"}], [SOME], ["/model/registry", "/model/add"]),
        ("some/1", [], [], ["/model/registry", "/model/add"]),
    ],
)
def test_models_are_described_and_loaded_for_it(
    call: Call, client: InferenceHTTPClient, stub: Stub, asked: str, before: list[Any], after: list[Any], requests: list[str]
) -> None:
    client.configure(InferenceConfiguration(api_key_transport="header"))
    stub.replies = [listed(*before), listed(*after)]
    if before == after:
        with pytest.raises(ModelNotInitializedError, match="some/1") as caught:
            call(client, "get_model_description", model_id=asked)
        assert isinstance(caught.value, HTTPClientError)
    else:
        assert call(client, "get_model_description", model_id=asked).task_type == "lmm"
    assert [received.path for received in stub.received] == requests
    stub.received.clear()
    stub.replies = [listed()]
    with pytest.raises(ModelNotInitializedError, match="allow_loading"):
        call(client, "get_model_description", asked, allow_loading=False)
    assert len(stub.received) == 1


def test_a_model_that_cannot_be_loaded_is_not_described(call: Call, client: InferenceHTTPClient, stub: Stub) -> None:
    stub.replies = [listed(), Reply(404, {"message": "no such model"})]
    with pytest.raises(HTTPCallErrorError, match="no such model"):
        call(client, "get_model_description", "some/1")


def test_values_have_a_form_in_json() -> None:
    for value in (ServerInfo("n", "v", "u"), RegisteredModels([ModelDescription("m", "lmm", 1, 2, 3)])):
        kind = type(value)
        assert kind.from_json(value.to_json(indent=1)) == kind.from_dict(value.to_dict()) == value
        assert json.loads(value.to_json()) == value.to_dict()


# Requests


def test_what_generation_is_given_travels(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path, jpeg_bytes: bytes) -> None:
    options: dict[str, Any] = {"prompt": "Text Recognition:", "max_new_tokens": 4096, "enable_thinking": True}
    stub.replies = [Reply(200, {"response": "text"})] * 2
    assert call(client, "infer_lmm", str(jpeg), "glm-ocr", model_id_in_path=True, **options) == {"response": "text"}
    image = {"type": "base64", "value": base64.b64encode(jpeg_bytes).decode()}
    assert (stub.last.path, stub.last.json) == (
        "/infer/lmm/glm-ocr",
        {"api_key": KEY, "image": image, "model_id": "glm-ocr", **options},
    )
    call(client, "infer_lmm", str(jpeg), "glm-ocr", **dict.fromkeys(options))
    assert (stub.last.path, stub.last.json) == ("/infer/lmm", {"api_key": KEY, "image": image, "model_id": "glm-ocr"})


@pytest.mark.parametrize(
    ("settings", "query"),
    [
        ({}, ""),
        ({"service_secret": "abc"}, "?service_secret=abc"),
        ({"count_inference": True}, "?countinference=True"),
        ({"count_inference": False, "service_secret": "abc"}, "?service_secret=abc&countinference=False"),
    ],
)
def test_what_is_for_accounts_goes_into_the_query(
    call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path, settings: dict[str, Any], query: str
) -> None:
    call(client.configure(InferenceConfiguration(**settings)), "infer_lmm", jpeg, "m")
    assert stub.last.path == "/infer/lmm" + query
    assert stub.last.json.keys() == {"api_key", "model_id", "image"}


@pytest.mark.parametrize(
    ("given", "size", "shares"),
    [(0, 10, []), (3, 0, [1, 1, 1]), (3, 2, [2, 1]), (5, 2, [2, 2, 1]), (1, 2, [1]), (4, 10, [4])],
)
def test_lists_are_sent_in_shares(
    call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path, given: int, size: int, shares: list[int]
) -> None:
    def respond(received: Received) -> Reply:
        image = received.json["image"]
        return Reply(200, [caption("a")] * len(image) if isinstance(image, list) else caption("a"))

    stub.respond = respond
    client.configure(InferenceConfiguration(max_batch_size=size, max_concurrent_requests=1))
    nested = [[jpeg] * (given - 1), jpeg] if given else []
    assert len(call(client, "infer_lmm", nested, "m", "<CAPTION>")) == given
    images = [received.json["image"] for received in stub.received]
    assert [len(image) if isinstance(image, list) else 1 for image in images] == shares
    assert all(isinstance(image, dict) == (share == 1) for image, share in zip(images, shares, strict=True))


# Images


BLACK = np.zeros((128, 128, 3), np.uint8)


def in_file(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(BLACK).save(buffer, format=format)
    return buffer.getvalue()


def forms(stub: Stub, folder: Path) -> list[Any]:
    """One black picture in every form that the known client takes, all but the URL's file on this side."""
    (folder / "black.jpg").write_bytes(in_file("JPEG"))
    (folder / "black.png").write_bytes(in_file("PNG"))
    stub.respond = lambda received: Reply(200, caption("a") if received.method == "POST" else in_file("JPEG"))
    text = base64.b64encode(in_file("JPEG")).decode()
    return [
        str(folder / "black.jpg"),
        str(folder / "black.png"),
        BLACK,
        BLACK[..., 0],
        Image.fromarray(BLACK),
        text,
        f"{stub.url}/black.jpg",
    ]


def sent(received: Received) -> Image.Image:
    assert received.json["image"]["type"] == "base64"
    return Image.open(io.BytesIO(base64.b64decode(received.json["image"]["value"], validate=True)))


@pytest.mark.parametrize(("is_scaled", "side"), [(False, 128), (True, 64)])
def test_every_form_of_a_picture_is_sent(
    call: Call, client: InferenceHTTPClient, stub: Stub, tmp_path: Path, is_scaled: bool, side: int
) -> None:
    given = forms(stub, tmp_path)
    client.configure(InferenceConfiguration(client_downsizing_disabled=not is_scaled, default_max_input_size=64, max_concurrent_requests=1))
    answers = call(client, "infer_lmm", given, "m", "<CAPTION>")
    assert len(answers) == len(given)
    pictures = [sent(received) for received in stub.received if received.method == "POST"]
    assert [picture.size for picture in pictures] == [(side, side)] * len(given)
    assert all(not np.asarray(picture).any() for picture in pictures)


@pytest.mark.parametrize(
    ("size", "limit", "wanted"), [((256, 512), 256, (128, 256)), ((265, 128), 512, (265, 128)), ((64, 64), 64, (64, 64))]
)
def test_pictures_are_made_smaller_and_never_larger(
    client: InferenceHTTPClient, stub: Stub, size: tuple[int, int], limit: int, wanted: tuple[int, int]
) -> None:
    client.configure(InferenceConfiguration(client_downsizing_disabled=False, default_max_input_size=limit))
    client.infer_lmm(Image.new("RGB", size), "m", "<CAPTION>")
    assert sent(stub.last).size == wanted


@pytest.mark.parametrize("wrong", [None, 5, {"type": "base64"}, object(), 1.5])
@pytest.mark.parametrize("is_listed", [False, True])
def test_what_is_no_picture_is_told_before_anything_is_sent(
    call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path, wrong: object, is_listed: bool
) -> None:
    with pytest.raises(InvalidInputFormatError) as caught:
        call(client, "infer_lmm", [jpeg, BLACK, wrong] if is_listed else wrong, "m", "<CAPTION>")
    assert isinstance(caught.value, EncodingError)
    assert stub.received == []


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "uint16", "int32", "int64"])
def test_arrays_of_integers_keep_their_values(client: InferenceHTTPClient, stub: Stub, kind: str) -> None:
    client.infer_lmm(np.full((8, 8, 3), 100).astype(kind), "m", "<CAPTION>")
    assert sent(stub.last).getpixel((1, 1)) == (100, 100, 100)


# Errors


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 500, 501, 502])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"message": "Not Found"}, "Not Found"),
        ({"detail": "not supported here"}, "not supported here"),
        ({"message": "no", "detail": "other"}, "no"),
        ({"message": None, "detail": "why"}, "why"),
        ({"message": "no", "inner_error_message": "why"}, "no. More details: why"),
        ({"detail": "no", "inner_error_message": "why"}, "no. More details: why"),
        (b"plain text", "plain text"),
    ],
)
def test_errors_have_status_and_message(call: Call, client: InferenceHTTPClient, stub: Stub, status: int, body: Any, said: str) -> None:
    stub.replies = [Reply(status, body)]
    with pytest.raises(HTTPCallErrorError) as caught:
        call(client, "list_loaded_models")
    assert (caught.value.status_code, caught.value.api_message) == (status, said)
    assert said in caught.value.description
    assert len(stub.received) == 1


@pytest.mark.parametrize("status", [200, 201, 300])
def test_statuses_that_are_no_errors(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path, status: int) -> None:
    stub.replies = [Reply(status, caption("a"))]
    assert call(client, "infer_lmm", jpeg, "m", "<CAPTION>") == caption("a")


def test_details_without_a_message_are_told(call: Call, client: InferenceHTTPClient, stub: Stub) -> None:
    stub.replies = [Reply(500, {"inner_error_message": "why"}), Reply(500, {"odd": 1})]
    for said in ("Internal Server Error. More details: why", "Internal Server Error"):
        with pytest.raises(HTTPCallErrorError) as caught:
            call(client, "list_loaded_models")
        assert caught.value.api_message == said


@pytest.mark.parametrize("key", ["my_key", "a b/c+d=e&f", "k"])
@pytest.mark.parametrize("content_type", ["text/plain", "application/json"])
def test_secrets_are_told_to_nobody(call: Call, stub: Stub, jpeg: Path, key: str, content_type: str) -> None:
    with InferenceHTTPClient(stub.url, key).select_api_v0() as client:
        client.configure(InferenceConfiguration(service_secret="super secret", count_inference=False))

        def echo(received: Received) -> Reply:
            said = f"500 for url: {stub.url}{received.path}&last=1 and api_key=another-one"
            return Reply(500, {"message": said} if content_type.endswith("json") else said.encode())

        stub.respond = echo
        with pytest.raises(HTTPCallErrorError) as caught:
            call(client, "infer_lmm", jpeg, "m", "<CAPTION>")
        told = f"{caught.value} {caught.value!r} {caught.value.api_message}"
        assert caught.value.api_message == (
            f"500 for url: {stub.url}/infer/lmm?api_key=***&service_secret=***&countinference=False&last=1 and api_key=***"
        )
        assert not any(secret in told for secret in ("my_key", "a+b", "super", "another"))


def test_texts_without_secrets_stay(client: InferenceHTTPClient, stub: Stub) -> None:
    stub.replies = [Reply(500, b"for https://some.com/endpoint?param_1=12098xx87s&param_2=2982s8x")]
    with pytest.raises(HTTPCallErrorError, match=r"param_1=12098xx87s&param_2=2982s8x"):
        client.list_loaded_models()


@pytest.mark.parametrize(("name", "arguments"), [("infer_lmm", ("m", "<CAPTION>")), *MANAGEMENT, ("get_server_info", ())])
def test_no_server_is_an_error_of_the_connection(call: Call, jpeg: Path, name: str, arguments: tuple[str, ...]) -> None:
    with InferenceHTTPClient("http://127.0.0.1:9", KEY).configure(FAST) as nobody, pytest.raises(HTTPServerConnectionError) as caught:
        call(nobody, name, *((jpeg,) if name == "infer_lmm" else ()), *arguments)
    assert isinstance(caught.value, HTTPClientError)
    assert not isinstance(caught.value, HTTPCallErrorError)


# Trying again


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 503, 504, 0])
@pytest.mark.parametrize(("failures", "sends"), [(1, 2), (2, 3), (3, 3)])
def test_what_passes_is_tried_three_times(
    call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path, status: int, failures: int, sends: int
) -> None:
    client.configure(FAST)
    stub.replies = [Reply(status, {"message": f"{place}"}) for place in range(failures)]
    if failures < 3:
        assert call(client, "infer_lmm", jpeg, "m", "<CAPTION>") == caption("a dog")
    else:
        kind = HTTPCallErrorError if status else HTTPServerConnectionError
        with pytest.raises(kind) as caught:
            call(client, "infer_lmm", jpeg, "m", "<CAPTION>")
        assert (caught.value.status_code, caught.value.api_message) == ((status, "2") if status else (None, None))
    assert len(stub.received) == sends
    assert len({received.body for received in stub.received}) == 1


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_one_failure_of_several_fails_them(call: Call, client: InferenceHTTPClient, stub: Stub, jpeg: Path, at_once: int) -> None:
    client.configure(InferenceConfiguration(max_concurrent_requests=at_once))
    stub.replies = [*[Reply(200, caption("a"))] * 3, Reply(500, {"message": "no"})]
    with pytest.raises(HTTPCallErrorError):
        call(client, "infer_lmm", [jpeg] * 4, "m", "<CAPTION>")
    assert len(call(client, "infer_lmm", [jpeg] * 4, "m", "<CAPTION>")) == 4


def test_one_job_stays_on_its_thread_and_several_keep_the_context() -> None:
    seen: list[tuple[bool, str]] = []
    who = contextvars.ContextVar("who", default="nobody")
    who.set("caller")

    async def job() -> None:
        seen.append((threading.current_thread() is threading.main_thread(), who.get()))
        who.set("changed")

    with blocking_client() as http:
        for jobs in (1, 3):
            run_blocking(Blocking(http).gather([job] * jobs, 4))
            if jobs == 1:
                who.set("caller")
    assert seen == [(True, "caller"), *[(False, "caller")] * 3]
