"""The page's routes: its files, what it asks the server about, and pictures that it is given a link to."""

from __future__ import annotations

import io
import mimetypes
import re
from typing import Any

import pytest
from PIL import Image

from florence2.server.playground.page_files import ASSETS_PATH, FILES
from florence2.server.settings import Settings
from florence2.tasks.table import TASKS
from tests.server.fakes import client_of, image_bytes
from tests.server.file_host import FETCHES_LOCALLY, host_of

pytestmark = pytest.mark.anyio

KEY = "KEY45678"
BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}


async def test_the_front_page_is_for_browsers_and_programs_get_json() -> None:
    async with client_of(api_keys=KEY) as client:
        page = await client.get("/", headers=BROWSER)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "Accept" in page.headers["vary"]
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert (await client.get("/", headers={"accept": "application/json"})).json()["links"]["routes"] == "/docs"
        assert (await client.head("/", headers=BROWSER)).status_code == 200


async def test_browsers_ask_again_and_get_only_what_has_changed() -> None:
    async with client_of() as client:
        for path in ("/", f"{ASSETS_PATH}/examples/scene.png"):
            first = await client.get(path, headers=BROWSER)
            assert first.headers["cache-control"] == "no-cache"
            again = await client.get(path, headers={**BROWSER, "if-none-match": f'"other", W/{first.headers["etag"]}'})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
            assert (await client.get(path, headers={**BROWSER, "if-none-match": '"other"'})).content == first.content


async def test_every_file_has_its_type_even_where_the_machine_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mimetypes, "guess_type", lambda *_, **__: ("text/plain", None))
    types = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".png": "image/png", ".svg": "image/svg+xml"}
    async with client_of(api_keys=KEY) as client:
        for name in FILES.names:
            file = await client.get(f"{ASSETS_PATH}/{name}")
            assert file.status_code == 200, name
            assert file.headers["x-content-type-options"] == "nosniff"
            assert file.headers["content-type"] == types.get("." + name.rpartition(".")[2], file.headers["content-type"])
        assert (await client.head(f"{ASSETS_PATH}/{FILES.names[0]}")).status_code == 200


@pytest.mark.parametrize(
    "name", ["../assets.py", "..%2fassets.py", "%2e%2e/assets.py", "/etc/passwd", "examples", "", "no.js", "examples/..%5cx"]
)
async def test_no_name_leads_out_of_the_folder(name: str) -> None:
    async with client_of() as client:
        answer = await client.get(f"{ASSETS_PATH}/{name}")
        assert answer.status_code == 404
        assert answer.json()["code"] == "not_found"


async def test_the_page_holds_nothing_that_its_policy_forbids() -> None:
    async with client_of() as client:
        page = (await client.get("/", headers=BROWSER)).text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", page)


async def test_what_the_page_asks_about() -> None:
    async with client_of(max_body_bytes=1000, root_path="/vision", allow_urls=False) as client:
        config = (await client.get("/vision/playground/config")).json()
        examples = [(example, await client.get(example["url"])) for example in config["examples"]]
    assert [task["tag"] for task in config["tasks"]] == list(TASKS)
    assert {task["needs"] for task in config["tasks"]} == {None, "text", "region"}
    assert config["default_model"] == config["models"][0] == "florence-2-demo"
    assert "not photographs" in config["notice"]
    assert (config["needs_key"], config["allow_urls"], config["max_body_bytes"]) == (False, False, 1000)
    assert config["root_path"] == "/vision"
    assert examples
    for example, file in examples:
        with Image.open(io.BytesIO(file.content)) as picture:
            assert picture.size == (example["width"], example["height"])


async def test_the_page_needs_no_key_and_what_it_asks_for_does() -> None:
    async with client_of(api_keys=KEY, **FETCHES_LOCALLY) as client:
        config = await client.get("/playground/config")
        assert config.json()["needs_key"] is True
        assert config.headers["cache-control"] == "no-store"
        with host_of({"/a": image_bytes()}) as host:
            refused = await client.post("/playground/image", json={"url": f"{host}/a"})
            given = await client.post("/playground/image", json={"url": f"{host}/a"}, headers={"authorization": f"Bearer {KEY}"})
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert given.content == image_bytes()


async def test_where_it_is_off_there_is_the_plain_page_and_nothing_else() -> None:
    async with client_of(playground=False) as client:
        page = await client.get("/", headers=BROWSER)
        assert "All routes" in page.text
        for path in ("/playground/config", f"{ASSETS_PATH}/examples/scene.png"):
            assert (await client.get(path)).status_code == 404
        assert (await client.post("/playground/image", json={"url": "https://example.com"})).status_code == 404
        assert (await client.head("/")).status_code == 200


def test_the_hosted_profile_has_no_page() -> None:
    for profile, has_page in (("local", True), ("dedicated", True), ("hosted", False)):
        given: dict[str, Any] = {"profile": profile, "api_keys": KEY}
        assert Settings(**given).playground is has_page


async def test_a_page_below_a_path_finds_its_files() -> None:
    async with client_of(root_path="/vision") as client:
        for address in ("/vision", "/vision/", "/"):
            page = (await client.get(address, headers=BROWSER)).text
            for link in re.findall(r'(?:src|href)="([^"#]+)"', page):
                assert link.startswith("/vision/playground/assets/"), link
                assert (await client.get(link)).status_code == 200


@pytest.mark.parametrize(
    ("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")]
)
async def test_a_linked_picture_comes_as_it_is_with_its_real_type(kind: str, media_type: str) -> None:
    data = image_bytes(kind=kind)
    with host_of({"/a": data}) as host:
        async with client_of(**FETCHES_LOCALLY) as client:
            answer = await client.post("/playground/image", json={"url": f"{host}/a"})
    assert answer.content == data
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


async def test_links_to_anything_else_are_refused_with_the_reason() -> None:
    files = {"/text": b"<b>no picture</b>", "/empty": b"", "/large": image_bytes() + bytes(3000), "/wide": image_bytes((200, 100))}
    files["/pdf"] = b"%PDF-1.7 " + bytes(20)
    cases = {
        "/text": (400, "invalid_image", "no picture"),
        "/empty": (400, "invalid_image", "nothing"),
        "/large": (413, "image_too_large", "2000 bytes"),
        "/wide": (413, "image_too_large", "10000 pixels"),
        "/pdf": (400, "invalid_image", "PDF document"),
        "/gone": (400, "invalid_image", "404"),
    }
    with host_of(files) as host:
        async with client_of(max_body_bytes=2000, max_image_pixels=10_000, **FETCHES_LOCALLY) as client:
            for path, (status, code, word) in cases.items():
                answer = await client.post("/playground/image", json={"url": host + path})
                error = answer.json()
                assert (answer.status_code, error["code"], error["field"]) == (status, code, "url"), path
                assert word in error["message"], path


async def test_the_servers_own_network_is_not_fetched_from() -> None:
    with host_of({"/a": image_bytes()}) as host:
        async with client_of(allow_http_urls=True) as client:
            for url in (f"{host}/a", "https://169.254.169.254/latest", "file:///etc/passwd", "https://localhost/a", "nonsense"):
                answer = await client.post("/playground/image", json={"url": url})
                assert (answer.status_code, answer.json()["field"]) == (400, "url"), url
        async with client_of(allow_urls=False) as client:
            answer = await client.post("/playground/image", json={"url": "https://example.com/a.png"})
            assert (answer.status_code, answer.json()["code"]) == (403, "not_offered")


async def test_a_body_that_is_none() -> None:
    async with client_of() as client:
        for content in (b"", b"[]", b'{"url": 1}', b'{"address": "https://example.com"}'):
            assert (await client.post("/playground/image", content=content)).status_code == 422
        assert (await client.post("/playground/image", content=b'{"url": "' + b"a" * 40_000)).status_code == 413
        assert (await client.get("/playground/image")).status_code == 405
