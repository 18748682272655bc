"""Pages of the web against a server on their reader's own machine."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.server.fakes import body, client_of

pytestmark = pytest.mark.anyio

OWN = "127.0.0.1:9001"


async def asked(path: str = "/infer/lmm", *, headers: dict[str, str], method: str = "POST", **settings: Any) -> httpx2.Response:
    """What the server says to a request with these headers."""
    async with client_of(**settings) as client:
        content = body() if path == "/infer/lmm" else {}
        return await client.request(method, path, headers={"Host": OWN, **headers}, json=content if method == "POST" else None)


@pytest.mark.parametrize("path", ["/infer/lmm", "/model/clear", "/model/add"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8000"},  # another program's page on the same machine
        {"Origin": "http://localhost:9001.evil.example"},
        {"Origin": "http://127.0.0.1:9001.evil.example"},
        {"Origin": "http://evil.example:9001", "Host": "evil.example:9001"},  # a name that was made to point here
        {"Host": "evil.example:9001"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:9001"},
        {"Host": "evil.example/.localhost"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example", "Content-Type": "text/plain"},
    ],
)
async def test_foreign_pages_are_refused(path: str, headers: dict[str, str]) -> None:
    response = await asked(path, headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "origin_refused"), response.text
    assert "allow_" in response.json()["message"]
    assert "access-control-allow-origin" not in response.headers
    assert "evil" not in response.json()["help_url"]


async def test_a_foreign_page_drops_no_model() -> None:
    async with client_of() as client:
        await client.post("/infer/lmm", json=body())
        loaded = (await client.get("/model/registry")).json()["models"]
        await client.post("/model/clear", headers={"Origin": "https://evil.example", "Content-Type": "text/plain"})
        assert (await client.get("/model/registry")).json()["models"] == loaded != []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:9001"},
        {"Host": "[::1]:9001"},
        {"Host": "192.168.1.7:9001"},
        {"Host": "gpu-box:9001"},
        {"Host": "gpu-box.local:9001"},
        {"Host": ""},
        {"Origin": f"http://{OWN}"},
        {"Origin": "http://localhost:9001", "Host": "localhost:9001"},
        {"Origin": "http://gpu-box:9001", "Host": "gpu-box:9001"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
async def test_programs_and_own_pages_are_answered(headers: dict[str, str]) -> None:
    response = await asked(headers=headers)
    assert response.status_code == 200, response.text


async def test_named_origins_and_hosts_are_answered() -> None:
    page = {"Origin": "https://a.example"}
    named = await asked(headers=page, allow_origins="https://a.example/,https://b.example")
    assert named.status_code == 200
    assert (await asked(headers={"Origin": "https://c.example"}, allow_origins="https://a.example,https://b.example")).status_code == 403
    everybody = await asked(headers=page, allow_origins="*")
    assert everybody.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in everybody.headers
    assert (await asked(headers={"Host": "box.example:9001"}, allow_hosts="box.example")).status_code == 200
    assert (await asked(headers={"Host": "Box.Example", **page}, public_url="https://box.example/v", allow_origins="*")).status_code == 200
    behind = {"Host": "box.example", "Origin": "https://box.example"}
    assert (await asked(headers=behind, public_url="https://box.example")).status_code == 200


async def test_named_origins_may_read_the_answer() -> None:
    settings = {"allow_origins": "https://a.example"}
    good = await asked(headers={"Origin": "https://a.example"}, **settings)
    assert good.headers["access-control-allow-origin"] == "https://a.example"
    preflight = {"Origin": "https://b.example", "Access-Control-Request-Method": "POST"}
    refused = await asked(headers=preflight, method="OPTIONS", **settings)
    assert (refused.status_code, refused.json()["code"]) == (403, "origin_refused")
    assert refused.headers["x-request-id"]
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("named", ["https://a.example/", "https://A.example", "https://a.example:443"])
async def test_an_origin_may_be_written_otherwise_than_browsers_do(named: str) -> None:
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    passed = await asked(headers=preflight, method="OPTIONS", allow_origins=named)
    assert (passed.status_code, passed.headers["access-control-allow-origin"]) == (200, "https://a.example")
    assert passed.headers["x-request-id"]
    assert "POST" in passed.headers["access-control-allow-methods"]
    answer = await asked(headers={"Origin": "https://a.example"}, allow_origins=named)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://a.example")


async def test_an_error_may_be_read_by_a_named_origin() -> None:
    missing = await asked("/nowhere", headers={"Origin": "https://a.example"}, allow_origins="https://a.example")
    assert (missing.status_code, missing.headers["access-control-allow-origin"]) == (404, "https://a.example")


async def test_where_keys_are_asked_for_names_are_not() -> None:
    key = {"Authorization": "Bearer K2345678"}
    host = {"Host": "api.example"}
    assert (await asked(headers={**key, **host}, api_keys="K2345678")).status_code == 200
    assert (await asked(headers={**key, **host, "Origin": "https://api.example"}, api_keys="K2345678")).status_code == 200
    assert (await asked(headers={**key, **host, "Origin": "https://evil.example"}, api_keys="K2345678")).status_code == 403


async def test_others_may_call_a_server_for_everybody_by_any_name() -> None:
    everybodys: dict[str, Any] = {"host": "0.0.0.0", "allow_anonymous": True}
    assert (await asked(headers={"Host": "api.example"}, **everybodys)).status_code == 200
    assert (await asked(headers={"Host": "evil.example", "Origin": "http://evil.example"}, **everybodys)).status_code == 403
