"""What somebody might send to break, bend or fill the server."""

from __future__ import annotations

import base64
import ipaddress
import json
import logging

import pytest
from pydantic import SecretStr

from fixtures.fake_engine import FakeEngine
from florence2.errors import InvalidOption
from florence2.server.app import create_app
from florence2.server.http.logs import FIELDS, TextFormatter
from florence2.server.self_check import run_check
from florence2.server.settings import Settings, read_settings
from florence2.server.settings_report import differing
from florence2.url_policy import is_public
from tests.server.fakes import body, client_of

pytestmark = pytest.mark.anyio
SECRET = "a-secret-key"


@pytest.mark.parametrize("url", ["https://xn--/x", "https://a.b:99999/x", "https://a.b:0/x", "https://exa mple.com/x"])
async def test_urls_that_are_none(url: str) -> None:
    async with client_of() as client:
        response = await client.post("/infer/lmm", json=body(image={"type": "url", "value": url}))
    assert (response.status_code, response.json()["code"]) == (400, "invalid_image")


async def test_deep_region_in_a_form() -> None:
    async with client_of() as client:
        response = await client.post(
            "/infer/lmm",
            data={"model_id": "florence-2-base", "prompt": "<REGION_TO_OCR>", "region": '{"a":' * 100_000},
            files={"image": ("a.png", b"x", "image/png")},
        )
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")
    assert "a field of the form has at most" in response.json()["message"]


@pytest.mark.parametrize("address", ["fec0::1", "192.88.99.1", "192.0.0.8", "3fff::1"])
def test_addresses_of_special_use(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


async def test_invented_methods_share_a_label() -> None:
    async with client_of() as client:
        for number in range(3):
            await client.request(f"INVENTED{number}", "/healthz")
        text = (await client.get("/metrics")).text
    assert "INVENTED" not in text
    assert 'method="other"' in text


def test_a_path_can_not_forge_a_line_of_the_log() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "request", None, None)
    setattr(record, FIELDS, {"path": "/x\n00:00:00 INFO forged", "status": 200})
    line = TextFormatter().format(record)
    assert "\n" not in line
    assert line.endswith('path="/x\\n00:00:00 INFO forged" status=200')


async def test_formats_that_start_other_programs_are_not_read() -> None:
    postscript = base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n").decode()
    async with client_of() as client:
        response = await client.post("/infer/lmm", json=body(image={"type": "base64", "value": postscript}))
    assert response.status_code == 400
    assert "no image in a format" in response.json()["message"]


async def test_what_stands_in_the_wrong_place_is_not_repeated() -> None:
    async with client_of() as client:
        response = await client.post("/infer/lmm", json=body(image={"type": SECRET * 3, "value": "x"}))
    assert response.status_code == 400
    assert SECRET not in response.text


async def test_names_of_types_stay_inside() -> None:
    async with client_of() as client:
        response = await client.post("/infer/lmm", json=body(prompt="<REGION_TO_OCR>", region={}))
    assert response.json()["field"] == "region"
    assert "list[float]" not in response.text


@pytest.mark.parametrize(("content", "kind"), [(b"{bad", "application/json"), (b"x", "text/css")])
async def test_a_missing_key_comes_before_what_is_wrong_with_the_body(content: bytes, kind: str) -> None:
    async with client_of(api_keys=SECRET) as client:
        response = await client.post("/infer/lmm", content=content, headers={"content-type": kind})
    assert response.status_code == 401


async def test_too_many_files_are_too_many_images() -> None:
    files = [("image", (f"{number}.png", b"x", "image/png")) for number in range(4)]
    async with client_of(max_images=3) as client:
        response = await client.post("/infer/lmm", data={"model_id": "florence-2-base", "prompt": "<OD>"}, files=files)
    assert (response.status_code, response.json()["code"]) == (413, "too_many_items")


async def test_a_region_outside_names_its_prompt() -> None:
    prompts = ["<OD>", {"prompt": "<REGION_TO_OCR>", "region": [0, 0, 5000, 5000]}]
    async with client_of() as client:
        response = await client.post("/infer/lmm", json={**body(prompts=prompts), "prompt": None})
    assert response.json()["field"] == "prompts[1].region", json.dumps(response.json())


def test_the_check_knows_keys_from_a_file(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys").write_text(SECRET + "\n", encoding="utf-8")
    settings = Settings(api_keys_file=tmp_path / "keys")
    run_check(settings, differing(settings, {}))
    shown = capsys.readouterr().out
    assert "all is well" in shown
    assert SECRET not in shown
    assert "florence-2-demo on cpu in " in shown
    assert "not photographs; --model florence-2-base" in shown


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.7", "gpu.example"])
def test_others_get_in_without_a_key_only_where_that_was_said(host: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="florence2")
    with pytest.raises(InvalidOption, match=r"--api-keys-file .* listen on 127.0.0.1; .* --allow-anonymous"):
        create_app(Settings(host=host), engine=FakeEngine())
    create_app(Settings(host=host, api_keys=[SecretStr(SECRET)]), engine=FakeEngine())
    assert "everybody may use this server" not in caplog.text
    create_app(Settings(host=host, allow_anonymous=True), engine=FakeEngine())
    assert "everybody may use this server" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "LOCALHOST.", "127.9.9.9", "::ffff:127.0.0.1"])
def test_ones_own_machine_needs_no_key(host: str) -> None:
    create_app(Settings(host=host), engine=FakeEngine())


def test_a_profile_that_needs_keys_starts_without_where_that_was_said() -> None:
    with pytest.raises(InvalidOption, match="FLORENCE2_ALLOW_ANONYMOUS=true"):
        read_settings({"profile": "dedicated"})
    assert read_settings({"profile": "hosted", "allow_anonymous": True}).host == "0.0.0.0"


async def test_a_prompt_that_is_too_long_is_told_before_the_image_is_looked_at() -> None:
    image = {"type": "base64", "value": "no image"}
    async with client_of() as client:
        one = await client.post("/infer/lmm", json=body(prompt="word " * 1500, image=image))
        several = await client.post("/infer/lmm", json={**body(prompts=["<OD>", "word " * 1500], image=image), "prompt": None})
    assert (one.status_code, one.json()["code"], one.json()["field"]) == (400, "prompt_too_long", "prompt")
    assert several.json()["field"] == "prompts[1].prompt"
