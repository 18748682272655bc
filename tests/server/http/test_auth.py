"""Keys: where they may stand, which one decides, and what is open without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute

from fixtures.fake_engine import FakeEngine
from florence2.errors import InvalidOption
from florence2.server.http import health, pages
from florence2.server.http.auth import OPEN_PATHS, Keys
from florence2.server.roboflow import API
from florence2.server.settings import Settings
from tests.server.fakes import body, client_of, image_bytes

pytestmark = pytest.mark.anyio

GOOD, OTHER, BAD = "good-key", "other-key", "bad-key"


def bearer(key: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {key}"}


async def status(client: httpx2.AsyncClient, *, query: str | None = None, header: dict[str, str] | None = None, **fields: Any) -> int:
    params = {} if query is None else {"api_key": query}
    return (await client.post("/infer/lmm", json=body(**fields), params=params, headers=header)).status_code


async def test_everybody_may_call_where_there_are_no_keys() -> None:
    async with client_of() as client:
        assert await status(client, api_key=None) == 200
        assert await status(client, api_key="") == 200
        assert await status(client, query="None") == 200


async def test_places_and_precedence() -> None:
    async with client_of(api_keys=f"{GOOD},{OTHER}") as client:
        assert await status(client, api_key=GOOD) == 200
        assert await status(client, api_key=OTHER) == 200
        assert await status(client, query=GOOD, header=bearer(BAD), api_key=BAD) == 200
        assert await status(client, header=bearer(GOOD), api_key=BAD) == 200
        assert await status(client, header=bearer(GOOD, "bEARER"), api_key=None) == 200
        assert await status(client, query=BAD, header=bearer(GOOD), api_key=GOOD) == 401
        assert await status(client, header=bearer(BAD), api_key=GOOD) == 401
        assert await status(client, query="", api_key=GOOD) == 401
        assert await status(client, query="None", api_key=None) == 401
        assert await status(client, api_key=BAD) == 401
        assert await status(client, api_key=None) == 401
        assert await status(client, api_key="") == 401
        assert await status(client, api_key=7) == 401
        assert await status(client, header=bearer(GOOD, "Basic"), api_key=None) == 401
        for nothing in ("Bearer", "Bearer ", "bearer   "):  # proxies write that where there is no key
            assert await status(client, header={"Authorization": nothing}, api_key=GOOD) == 200
            assert await status(client, header={"Authorization": nothing}, api_key=BAD) == 401
            assert await status(client, header={"Authorization": nothing}, api_key=None) == 401
            assert await status(client, query=GOOD, header={"Authorization": nothing}) == 200
        assert await status(client, header={"x-api-key": GOOD}, api_key=None) == 401


async def test_refusal_as_clients_know_it() -> None:
    async with client_of(api_keys=GOOD) as client:
        response = await client.post("/infer/lmm", json=body(api_key=BAD))
    assert response.status_code == 401
    content = response.json()
    assert (content["status"], content["message"], content["code"]) == (401, "Unauthorized api_key", "unauthorized")
    assert BAD not in response.text


async def test_headers_can_be_switched_off() -> None:
    async with client_of(api_keys=GOOD, allow_key_in_header=False) as client:
        assert await status(client, header=bearer(GOOD), api_key=None) == 401
        assert await status(client, header=bearer(BAD), api_key=GOOD) == 200


async def test_every_route_but_the_open_ones_asks_for_a_key() -> None:
    async with client_of(api_keys=GOOD) as client:
        all_routes = [*API.router.routes, *health.router.routes, *pages.router.routes]
        routes = [(route.path, method) for route in all_routes if isinstance(route, APIRoute) for method in route.methods or ()]
        assert len(routes) >= 12
        for path, method in [*routes, ("/openapi.json", "GET"), ("/unknown", "GET"), ("/unknown", "POST"), ("/model/other", "POST")]:
            response = await client.request(method, path.replace("{model_id:path}", "florence-2-base"), json={})
            assert (response.status_code == 401) == (path not in OPEN_PATHS | API.open_paths), (method, path, response.text)


@pytest.mark.parametrize("path", ["//metrics", "/docs/../metrics", "/docs/other", "/info/", "/Info", "/metrics?x=/info", "/%2e%2e/info"])
async def test_tricks_with_paths(path: str) -> None:
    async with client_of(api_keys=GOOD) as client:
        transport = client._transport
        scope_path = path.partition("?")[0]
        request = httpx2.Request("GET", httpx2.URL("http://server").copy_with(raw_path=path.encode()), headers={"Host": "server/info?"})
        response = await transport.handle_async_request(request)
    assert response.status_code == 401, scope_path


async def test_keys_in_forms_and_queries() -> None:
    fields = {"model_id": "florence-2-base", "prompt": "<OD>"}
    files = {"image": ("a.png", image_bytes())}
    async with client_of(api_keys=GOOD) as client:
        good = await client.post("/infer/lmm", data={**fields, "api_key": GOOD}, files=files)
        bad = await client.post("/infer/lmm", data={**fields, "api_key": BAD}, files=files)
        raw = {"content": image_bytes(), "headers": {"Content-Type": "image/png"}}
        assert (await client.post("/infer/lmm", params={**fields, "api_key": GOOD}, **raw)).status_code == 200
        assert (await client.post("/infer/lmm", params=fields, **raw)).status_code == 401
    assert (good.status_code, bad.status_code) == (200, 401)


async def test_management_takes_keys_from_the_body_too() -> None:
    async with client_of(management_keys=GOOD) as client:
        assert (await client.post("/model/add", json={"model_id": "florence-2-base", "api_key": GOOD})).status_code == 200
        assert (await client.post("/model/remove", json={"model_id": "florence-2-base"})).status_code == 401
        assert (await client.post("/model/clear")).status_code == 401
        assert (await client.post("/model/clear", headers=bearer(GOOD))).status_code == 200
        assert (await client.get("/model/registry", params={"api_key": GOOD})).status_code == 200


async def test_wrong_requests_without_a_key_learn_nothing() -> None:
    async with client_of(api_keys=GOOD) as client:
        response = await client.post("/infer/lmm", json={"prompt": 7})
    assert response.status_code == 401


async def test_file_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# team a\n  first-key \n\nsecond-key\n", encoding="utf-8")
    keys = Keys(Settings(api_keys="third-key", api_keys_file=path))  # type: ignore[arg-type]
    assert [(await keys.check(key)).name for key in ("third-key", "first-key", "second-key")] == ["key-1", "key-2", "key-3"]


@pytest.mark.parametrize("content", [None, "# none\n", b"\xff\xfe\x00"])
def test_bad_file_of_keys(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidOption, match="file of keys") as caught:
        Keys(Settings(api_keys_file=path))
    assert caught.value.field == "api_keys_file"


async def test_keys_take_turns_in_the_engine() -> None:
    engine = FakeEngine()
    async with client_of(engine, api_keys="first-key,second-key") as client:
        for key in ("second-key", "first-key"):
            assert (await client.post("/infer/lmm", json=body(api_key=key))).status_code == 200
    assert [asked["fair_key"] for asked in engine.asked] == ["key-2", "key-1"]


async def test_what_each_role_may() -> None:
    """A key of ``api_keys`` asks; loading, dropping and metrics are for those of ``management_keys``."""
    async with client_of(api_keys=GOOD, management_keys=OTHER) as client:
        for key, may_manage in ((GOOD, False), (OTHER, True)):
            header = bearer(key)
            assert await status(client, header=header) == 200
            for path in ("/v1/models", "/model/registry", "/openapi.json", "/info"):
                assert (await client.get(path, headers=header)).status_code == 200, path
            answers = [await client.post("/model/add", json={"model_id": "florence-2-base", "api_key": key})]
            answers += [await client.post("/model/remove", json={"model_id": "florence-2-base"}, params={"api_key": key})]
            answers += [await client.post("/model/clear", headers=header), await client.get("/metrics", headers=header)]
            assert [answer.status_code for answer in answers] == [200 if may_manage else 403] * 4
            if not may_manage:
                assert answers[0].json()["code"] == "forbidden"
                assert "role manage" in answers[0].json()["message"]


async def test_metrics_can_be_open_beside_keys() -> None:
    async with client_of(api_keys=GOOD, open_metrics=True) as client:
        assert (await client.get("/metrics")).status_code == 200
    async with client_of(api_keys=GOOD) as client:
        assert (await client.get("/metrics")).status_code == 401


async def test_everything_is_open_without_keys() -> None:
    async with client_of() as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.post("/model/add", json={"model_id": "florence-2-base"})).status_code == 200
        assert (await client.post("/model/clear")).status_code == 200
