"""What goes over the wire, literally, as the known client sends it; and what is made of each kind of answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from florence2.client import CallError, HTTPClientMode, InferenceConfiguration, InvalidParameter, UnexpectedAnswer, wire
from florence2.client.wire import Response, Target

KEY = "KEY1234567890"
IMAGE = {"type": "base64", "value": "/9j/4AAQ"}
CAPTION = {"prompt": "<CAPTION>"}
V0, V1 = HTTPClientMode.V0, HTTPClientMode.V1


def target(mode: HTTPClientMode = V1, key: str | None = KEY, **settings: Any) -> Target:
    return Target("http://localhost:9001", key, mode, InferenceConfiguration(**settings))


def inferred(to: Target, *images: dict[str, str], in_path: bool = False, **options: Any) -> tuple[str, dict[str, Any], dict[str, str]]:
    request = wire.infer_request(to, "florence-2-base", images or (IMAGE,), options or CAPTION, model_id_in_path=in_path)
    assert request.method == "POST"
    assert request.content is not None
    return request.url.removeprefix("http://localhost:9001"), json.loads(request.content), dict(request.headers)


@pytest.mark.parametrize(
    ("mode", "transport", "key", "path", "body_key", "bearer"),
    [
        (V1, None, KEY, "/infer/lmm", {"api_key": KEY}, None),
        (V1, "legacy", None, "/infer/lmm", {"api_key": None}, None),
        (V1, "header", KEY, "/infer/lmm", {}, f"Bearer {KEY}"),
        (V1, "header", None, "/infer/lmm", {}, None),
        (V1, "both", KEY, "/infer/lmm", {"api_key": KEY}, f"Bearer {KEY}"),
        (V0, None, KEY, f"/infer/lmm?api_key={KEY}", {}, None),
        (V0, None, None, "/infer/lmm", {}, None),
        (V0, "header", KEY, "/infer/lmm", {}, f"Bearer {KEY}"),
        (V0, "both", KEY, f"/infer/lmm?api_key={KEY}", {}, f"Bearer {KEY}"),
    ],
)
def test_key_has_its_place_by_mode_and_transport(
    mode: HTTPClientMode, transport: str | None, key: str | None, path: str, body_key: dict[str, Any], bearer: str | None
) -> None:
    url, body, headers = inferred(target(mode, key, api_key_transport=transport))
    assert url == path
    assert body == {**body_key, "model_id": "florence-2-base", "prompt": "<CAPTION>", "image": IMAGE}
    assert headers.get("Authorization") == bearer
    assert headers["Content-Type"] == "application/json"


def test_options_and_settings_travel_only_when_given() -> None:
    to = target(source="src", source_info="info", service_secret="shh", count_inference=False, disable_preproc_auto_orientation=True)
    url, body, _ = inferred(to, prompt="<OD>", max_new_tokens=20, enable_thinking=False)
    assert url == "/infer/lmm?service_secret=shh&countinference=False"
    assert body == {
        "source": "src",
        "source_info": "info",
        "api_key": KEY,
        "model_id": "florence-2-base",
        "prompt": "<OD>",
        "max_new_tokens": 20,
        "enable_thinking": False,
        "disable_preproc_auto_orient": True,
        "image": IMAGE,
    }


def test_model_in_path_is_also_in_the_body() -> None:
    url, body, _ = inferred(target(), in_path=True)
    assert url == "/infer/lmm/florence-2-base"
    assert body["model_id"] == "florence-2-base"
    request = wire.infer_request(target(), "ws/my project/3", [IMAGE], {}, model_id_in_path=True)
    assert request.url.endswith("/infer/lmm/ws/my%20project/3")


def test_several_images_are_a_list() -> None:
    _, body, _ = inferred(target(), IMAGE, {"type": "url", "value": "https://x.y/z.jpg"})
    assert body["image"] == [IMAGE, {"type": "url", "value": "https://x.y/z.jpg"}]


def test_numbers_of_numpy_travel_as_numbers() -> None:
    _, body, _ = inferred(target(), region=np.array([1, 2, 3, 4]), num_beams=np.int64(3))
    assert (body["region"], body["num_beams"]) == ([1, 2, 3, 4], 3)
    with pytest.raises(InvalidParameter, match="JSON"):
        inferred(target(), region=[float("nan"), 0, 1, 1])
    with pytest.raises(InvalidParameter, match="set"):
        inferred(target(), region={1, 2})


@pytest.mark.parametrize(
    ("request_", "line", "body", "bearer"),
    [
        (wire.info_request(target()), "GET /info", None, None),
        (wire.info_request(target(api_key_transport="header")), "GET /info", None, None),
        (wire.registry_request(target()), f"GET /model/registry?api_key={KEY}", None, None),
        (wire.registry_request(target(key=None)), "GET /model/registry", None, None),
        (wire.registry_request(target(api_key_transport="header")), "GET /model/registry", None, f"Bearer {KEY}"),
        (wire.load_request(target(), "florence-2-base"), "POST /model/add", {"model_id": "florence-2-base", "api_key": KEY}, None),
        (wire.load_request(target(api_key_transport="header"), "m"), "POST /model/add", {"model_id": "m"}, f"Bearer {KEY}"),
        (wire.unload_request(target(), "m"), "POST /model/remove", {"model_id": "m"}, f"Bearer {KEY}"),
        (wire.unload_request(target(key=None), "m"), "POST /model/remove", {"model_id": "m"}, None),
        (wire.unload_request(target(), None), "POST /model/clear", None, f"Bearer {KEY}"),
    ],
)
def test_management_requests(request_: wire.Request, line: str, body: Any, bearer: str | None) -> None:
    assert f"{request_.method} {request_.url.removeprefix('http://localhost:9001')}" == line
    assert (json.loads(request_.content) if request_.content else None) == body
    assert request_.headers.get("Authorization") == bearer


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("https://serverless.roboflow.com", V0),
        ("https://detect.roboflow.com/", V0),
        ("https://serverless.roboflow-eu.one", V0),
        ("http://serverless.roboflow.com", V1),
        ("https://mine.roboflow.cloud", V1),
        ("http://localhost:9001", V1),
        ("https://serverless.roboflow.com.elsewhere.net", V1),
        ("https://elsewhere.net/serverless.roboflow.com", V1),
    ],
)
def test_mode_is_told_by_the_host(url: str, mode: HTTPClientMode) -> None:
    assert wire.mode_of(wire.server_url(url)) is mode


def test_server_url_is_cleaned_or_refused() -> None:
    assert wire.server_url(" http://localhost:9001// ") == "http://localhost:9001"
    assert wire.server_url("https://host/prefix/") == "https://host/prefix"
    with pytest.raises(InvalidParameter, match="did you mean http://localhost:9001"):
        wire.server_url("localhost:9001")
    for wrong in ("", "ftp://host", "http://", "http://host:port", "http://host?x=1", "http://host:0"):
        with pytest.raises(InvalidParameter, match="api_url"):
            wire.server_url(wrong)
    with pytest.raises(InvalidParameter, match="NoneType"):
        wire.server_url(None)  # type: ignore[arg-type]


def answered(status: int, body: Any, **headers: str) -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


REQUEST = wire.infer_request(target(), "m", [IMAGE], CAPTION, model_id_in_path=False)


def failure(status: int, body: Any, **headers: str) -> CallError:
    with pytest.raises(CallError) as caught:
        wire.read_answer(answered(status, body, **headers), REQUEST, target())
    return caught.value


def test_error_of_this_projects_server_has_all_its_parts() -> None:
    body = {"message": "no text", "code": "invalid_prompt", "field": "text", "help_url": "http://s/docs/errors#invalid_prompt"}
    error = failure(400, body, x_request_id="r-7")
    assert (error.api_message, error.status_code, error.code, error.field) == ("no text", 400, "invalid_prompt", "text")
    assert (error.help_url, error.request_id, error.retry_after) == (body["help_url"], "r-7", None)
    assert str(error) == "no text (POST /infer/lmm: HTTP 400, code invalid_prompt, field text, request r-7)"
    assert error.description == str(error)
    assert failure(400, {**body, "help_url": "/docs/errors#x"}).help_url == target().url + "/docs/errors#x"
    assert failure(400, {**body, "help_url": 7}).help_url is None


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, {"message": "Internal error."}, "Internal error."),
        (405, {"detail": "Method Not Allowed"}, "Method Not Allowed"),
        (401, {"status": 401, "message": "Unauthorized api_key"}, "Unauthorized api_key"),
        (500, b"Internal Server Error", "Internal Server Error"),
        (502, b"", "Bad Gateway"),
        (599, b"", "no message"),
        (404, {}, "Not Found"),
        (400, ["odd"], '["odd"]'),
    ],
)
def test_errors_of_other_servers_are_understood(status: int, body: Any, said: str) -> None:
    error = failure(status, body)
    assert (error.api_message, error.status_code, error.code) == (said, status, f"http_{status}")


def test_validation_errors_are_told_without_what_was_sent() -> None:
    echoed = {"type": "missing", "loc": ["body", "image"], "msg": "Field required", "input": {"api_key": KEY, "image": "AAAA"}}
    error = failure(422, {"detail": [echoed, {"loc": ["body", "prompt"], "msg": "not a string"}]})
    assert error.api_message == "body.image: Field required; body.prompt: not a string"


def test_messages_hold_neither_key_nor_page() -> None:
    assert failure(400, {"message": f"key {KEY} is wrong"}).api_message == "key *** is wrong"
    assert failure(503, b"<html><body>proxy</body></html>", content_type="text/html").api_message == "Service Unavailable"
    assert len(str(failure(500, b"x" * 100_000))) < 1000
    assert KEY not in repr(failure(400, {"message": f"key {KEY} is wrong"}))


def test_inner_errors_are_told() -> None:
    assert failure(502, {"message": "no", "inner_error_message": "why"}).api_message == "no. More details: why"


def test_redirect_says_where_the_server_is() -> None:
    error = failure(307, b"", location="https://elsewhere/infer/lmm")
    assert "https://elsewhere/infer/lmm" in str(error)
    assert "api_url" in str(error)


def test_answer_that_is_no_json() -> None:
    with pytest.raises(UnexpectedAnswer, match="Welcome") as caught:
        wire.read_answer(answered(200, b"<html>Welcome"), REQUEST, target())
    assert caught.value.status_code == 200
    assert wire.read_answer(answered(201, {"a": 1}), REQUEST, target()) == {"a": 1}


def test_retry_after_in_seconds_or_as_a_date() -> None:
    assert wire.retry_after_of(answered(503, {}, retry_after="7")) == 7.0
    assert wire.retry_after_of(answered(503, {}, retry_after="0.5")) == 0.5
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    waited = wire.retry_after_of(answered(503, {}, retry_after=in_a_minute))
    assert waited is not None
    assert 55 < waited <= 60
    assert wire.retry_after_of(answered(503, {}, retry_after="Thu, 01 Jan 1970 00:00:00 GMT")) == 0.0
    for illegible in ({}, {"retry_after": "soon"}, {"retry_after": "1 s"}):
        assert wire.retry_after_of(answered(503, {}, **illegible)) is None


@pytest.mark.parametrize("key", ["a\nb", "schlüssel", "a\0b"])
def test_keys_that_no_header_carries_are_refused_and_not_shown(key: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        wire.checked_key(key)
    assert key not in str(caught.value)
    assert caught.value.field == "api_key"


def test_keys_lose_the_space_around_them() -> None:
    assert wire.checked_key(" key\n") == "key"
    assert wire.checked_key("") is None
    assert wire.checked_key(None) is None


@pytest.mark.parametrize("url", ["http://a b", "http://\0", "http://a\tb"])
def test_addresses_with_gaps_are_none(url: str) -> None:
    with pytest.raises(InvalidParameter):
        wire.server_url(url)


def test_the_servers_index_is_not_repeated() -> None:
    error = wire.error_of_item({"message": "image[1]: damaged", "code": "invalid_image", "status": 400}, target())
    assert error.api_message == "damaged"
    assert str(error).startswith("damaged (code invalid_image")
