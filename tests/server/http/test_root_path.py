"""A server below a path, and pages that load nothing from elsewhere."""

from __future__ import annotations

import re

import pytest

from tests.server.fakes import body, client_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("prefix", ["/vision/florence2", ""])  # proxies leave it on, or take it off
async def test_every_path_is_answered_below_the_prefix(prefix: str) -> None:
    async with client_of(root_path="/vision/florence2", api_keys="KEY45678") as client:
        answer = await client.post(f"{prefix}/infer/lmm", json=body(api_key="KEY45678"))
        assert answer.status_code == 200, answer.text
        assert (await client.get(f"{prefix}/healthz")).status_code == 200
        assert (await client.get(f"{prefix}/model/registry")).status_code == 401
        refused = await client.post(f"{prefix}/infer/lmm?api_key=KEY45678", json=body(prompt="<FOO>"))
        assert refused.json()["help_url"] == "/vision/florence2/docs/errors#unknown_task"
        assert (await client.get(f"{prefix}/docs/errors")).status_code == 200


async def test_a_path_that_only_begins_alike_is_not_taken() -> None:
    async with client_of(root_path="/vision") as client:
        assert (await client.get("/visionary/healthz")).status_code == 404
        assert (await client.get("/vision")).status_code == 200


@pytest.mark.parametrize("root_path", ["", "/vision"])
async def test_links_of_pages_lead_below_the_prefix(root_path: str) -> None:
    async with client_of(root_path=root_path, api_keys="KEY45678") as client:
        for page in ("/", "/docs", "/docs/errors"):
            text = (await client.get(root_path + page)).text
            links = re.findall(r"""(?:href|src|url)\s*[=:]\s*['"]([^'"#]+)""", text)
            assert links or page == "/docs/errors"
            for link in links:
                assert link == "data:," or link.startswith((root_path + "/", "playground/")), link
                if link != "data:," and "openapi" not in link:
                    assert (await client.get(link)).status_code == 200, link
        described = (await client.get(f"{root_path}/openapi.json?api_key=KEY45678")).json()
        assert described.get("servers") == ([{"url": root_path}] if root_path else None)


async def test_the_page_of_routes_is_whole_and_loads_nothing_from_elsewhere() -> None:
    async with client_of(api_keys="KEY45678") as client:
        page = await client.get("/docs?api_key=KEY%3C45678")
        assert not re.search(r"https?://|//cdn", page.text)
        assert "script-src 'self' 'sha256-" in page.headers["content-security-policy"]
        assert page.headers["referrer-policy"] == "no-referrer"
        script = await client.get("/docs/assets/swagger-ui-bundle.js")
        style = await client.get("/docs/assets/swagger-ui.css")
        assert script.headers["content-type"].startswith(("text/javascript", "application/javascript"))
        assert "SwaggerUIBundle" in script.text
        assert ".swagger-ui" in style.text
        assert (await client.get("/docs/assets/../../etc/passwd")).status_code in (401, 404)
