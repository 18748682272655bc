"""Routes that are called directly answer and are described as FastAPI's own are."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from starlette.responses import Response

from florence2.server.http.direct_route import DirectRoute


def client_of(route_class: type[APIRoute]) -> TestClient:
    router = APIRouter(route_class=route_class)

    @router.post("/things/{name:path}", responses={200: {"description": "a text"}})
    async def ask(request: Request, name: str, count: bool | None = None) -> Response:
        body = await request.body()
        return Response(b"%s %s %s" % (name.encode(), str(count).encode(), body), headers={"x-own": "1"})

    @router.get("/checked")
    async def checked(number: int) -> dict[str, int]:
        return {"number": number}

    app = FastAPI()
    app.include_router(router)
    return TestClient(app)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/things/a/b"),
        ("POST", "/things/a?other=1"),
        ("POST", "/things/a?count=true"),
        ("POST", "/things/a?other=1&count=false"),
        ("POST", "/things/a?count=perhaps"),
        ("POST", "/things/a?c%6funt=perhaps"),
        ("GET", "/things/a"),
        ("GET", "/checked?number=2"),
        ("GET", "/checked?number=two"),
    ],
)
def test_a_direct_route_answers_as_any_other(method: str, path: str) -> None:
    usual, direct = (
        client_of(kind).request(method, path, content=b"body" if method == "POST" else None) for kind in (APIRoute, DirectRoute)
    )
    assert (direct.status_code, direct.content) == (usual.status_code, usual.content)
    assert direct.headers == usual.headers


def test_its_arguments_are_read_only_where_the_query_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    solved: list[str] = []

    def handler(self: APIRoute) -> object:
        async def read(request: Request) -> Response:
            solved.append(str(request.url.query))
            return Response()

        return read

    monkeypatch.setattr(APIRoute, "get_route_handler", handler)
    client = client_of(DirectRoute)
    for query in ("", "?api_key=k", "?count=true", "?c%6funt=1"):
        assert client.post(f"/things/a{query}").status_code == 200
    assert solved == ["count=true", "c%6funt=1"]


def test_it_is_described_as_any_other() -> None:
    usual, direct = (client_of(kind).get("/openapi.json").json() for kind in (APIRoute, DirectRoute))
    assert direct == usual
    assert [one["name"] for one in direct["paths"]["/things/{name}"]["post"]["parameters"]] == ["name", "count"]
