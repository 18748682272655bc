"""Keys of a database in a running application: roles, models, rates, places, quotas; what happens while the database is away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fixtures.fake_engine import FakeEngine
from florence2.errors import InvalidOption
from florence2.server.accounts import stored_keys
from florence2.server.accounts.database import Database
from florence2.server.accounts.key_info import KeyInfo, Role
from florence2.server.accounts.rate_limits import RateLimits
from florence2.server.accounts.store import KeyStore
from florence2.server.errors import RateLimited
from tests.server.accounts.services import PostgreSQL, Redis
from tests.server.fakes import body, client_of, image_field

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(url: str) -> Iterator[KeyStore]:
    with Database(url) as database:
        yield KeyStore(database)


def info(name: str = "team-a", *roles: Role, **limits: Any) -> KeyInfo:
    return KeyInfo(name, frozenset(roles or ("infer",)), **limits)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def serving(url: str, engine: FakeEngine | None = None, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(engine, database=url, **settings) as client:
        yield client


async def ask(client: httpx2.AsyncClient, key: str, **fields: Any) -> httpx2.Response:
    return await client.post("/infer/lmm", json=body(api_key=key, **fields))


async def test_a_key_is_found_wherever_it_stands_and_others_are_not(store: KeyStore, url: str) -> None:
    key = store.create(info())
    async with serving(url, api_keys="a-key-of-settings") as client:
        assert (await ask(client, key)).status_code == 200
        assert (await ask(client, "", model_id="florence-2-base")).status_code == 401
        assert (await client.post("/infer/lmm", json=body(api_key=None), headers=bearer(key))).status_code == 200
        assert (await client.post("/infer/lmm", json=body(), params={"api_key": key})).status_code == 200
        assert (await ask(client, "a-key-of-settings")).status_code == 200
        for wrong in (key[:-1] + ("y" if key[-1] == "x" else "x"), key[:11], "f2_", key + "x", "\ud800"):
            answer = await client.post("/infer/lmm", params={"api_key": wrong.encode("utf-8", "replace").decode()}, json=body())
            assert answer.status_code == 401
        assert (await client.post("/model/clear", headers=bearer(key))).json()["code"] == "forbidden"
        new = store.create(info("made-meanwhile", "infer", "manage", "metrics"))
        assert (await client.post("/model/add", json={"model_id": "florence-2-base"}, headers=bearer(new))).status_code == 200
        assert (await client.get("/metrics", headers=bearer(new))).status_code == 200


async def test_a_database_without_keys_is_no_open_server(store: KeyStore, url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(url) as client:
        assert (await ask(client, "")).status_code == 401
        assert (await client.get("/playground/config")).json()["needs_key"] is True
    assert "florence2 keys create NAME makes one" in caplog.text


async def test_revoked_rotated_and_expired_keys_end(store: KeyStore, url: str) -> None:
    revoked, rotated = store.create(info("a")), store.create(info("b"))
    short = store.create(info("c"), expires_at=int(time.time()) + 2)
    async with serving(url) as client:
        for key in (revoked, rotated, short):
            assert (await ask(client, key)).status_code == 200
        store.revoke("a")
        new = store.rotate("b", grace_s=1000)
        began = time.monotonic()
        while (await ask(client, revoked)).status_code != 401:
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.1)
        assert [(await ask(client, key)).status_code for key in (rotated, new)] == [200, 200]
        await asyncio.sleep(max(0.0, began + 2.5 - time.monotonic()))
        assert (await ask(client, short)).status_code == 401


async def test_models_of_a_key(store: KeyStore, url: str) -> None:
    key = store.create(info("a", "infer", "manage", models=frozenset({"florence-pretrains/3", "not-there"})))
    async with serving(url) as client:
        assert (await ask(client, key, model_id="florence-2-base")).status_code == 200
        refused = await ask(client, key, model_id="florence-2-large")
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        listed = (await client.get("/v1/models", headers=bearer(key))).json()["data"]
        assert [one["id"] for one in listed] == ["florence-2-base"]
        assert (await client.get("/v1/models/florence-2-large", headers=bearer(key))).status_code == 403
        chat = {"model": "florence-2-large", "messages": [{"role": "user", "content": "<OD>"}]}
        assert (await client.post("/v1/chat/completions", json=chat, headers=bearer(key))).status_code == 403
        shown = (await client.get("/model/registry", headers=bearer(key))).json()["models"]
        assert shown
        assert "florence-2-large" not in str(shown)
        for path, fields in (("add", {"model_id": "florence-2-large"}), ("remove", {"model_id": "florence-2-large"}), ("clear", {})):
            assert (await client.post(f"/model/{path}", json=fields, headers=bearer(key))).status_code == 403


async def test_places_of_a_key(store: KeyStore, url: str) -> None:
    small, other = store.create(info("small", max_slots=2)), store.create(info("other"))
    engine = FakeEngine()
    engine.hold = True
    async with serving(url, engine) as client:
        held = [asyncio.create_task(ask(client, small)) for _ in range(2)]
        while len(engine.futures) < 2:
            await asyncio.sleep(0.01)
        assert (await ask(client, small)).json()["code"] == "overloaded"
        waiting = asyncio.create_task(ask(client, other))
        while len(engine.futures) < 3:
            await asyncio.sleep(0.01)
        engine.release()
        assert [(await one).status_code for one in (*held, waiting)] == [200] * 3


async def test_a_quota_holds_to_the_image_and_over_a_restart(store: KeyStore, url: str) -> None:
    key = store.create(info("a", monthly_quota=5))
    async with serving(url) as client:
        answers = await asyncio.gather(*(ask(client, key) for _ in range(4)))
        assert [answer.status_code for answer in answers] == [200] * 4
        two = await ask(client, key, image=[image_field(), image_field()])
        assert (two.status_code, two.json()["code"]) == (429, "quota_exceeded")
        assert "1 are left, and this request has 2" in two.json()["message"]
        assert 0 < int(two.headers["retry-after"]) <= 86400
        assert (await ask(client, key, prompt="<NOPE>")).status_code == 400  # costs nothing
    async with serving(url) as client:
        assert (await ask(client, key)).status_code == 200
        assert (await ask(client, key)).status_code == 429


async def test_two_servers_see_each_others_quota(store: KeyStore, url: str) -> None:
    key = store.create(info("a", monthly_quota=3))
    async with serving(url) as first, serving(url) as second:
        for _ in range(3):
            assert (await ask(first, key)).status_code == 200
        for server in (first, second):  # each writes what it has noted, and reads the sums, as it does every second by itself
            assert (await server.get("/usage", headers=bearer(key))).json()["usage"][0]["images"] == 3
        assert (await ask(second, key)).json()["code"] == "quota_exceeded"


# Rates


@pytest.fixture(params=["memory", "redis"])
def limits_url(request: pytest.FixtureRequest) -> str:
    return "memory://" if request.param == "memory" else request.getfixturevalue("redis").url


async def test_a_rate_in_the_application(tmp_path: Path, limits_url: str) -> None:
    url = f"sqlite:///{tmp_path}/accounts.sqlite"
    with Database(url) as database:
        name = f"a{time.time_ns()}"
        key = KeyStore(database).create(info(name, rate="3/hour"))
    async with serving(url, limits_url=limits_url) as client:
        assert [(await ask(client, key)).status_code for _ in range(4)] == [200, 200, 200, 429]
        refused = await client.post("/v1/chat/completions", json={}, headers=bearer(key))
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
        assert 0 < int(refused.headers["retry-after"]) <= 3600
        assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200  # costs nothing
        usage = (await client.get("/usage", headers=bearer(key))).json()["usage"]
        assert sum(row["errors"].get("rate_limited", 0) for row in usage) == 2


@pytest.mark.parametrize("url", ["redis://:secret@host:port/0", "redis+sentinel://:secret@host/", "http://:secret@host"])
async def test_a_redis_that_can_not_be_is_told_without_its_password(url: str) -> None:
    with pytest.raises(InvalidOption, match="redis://host:6379/0") as caught:
        RateLimits(url)
    assert "secret" not in caught.value.message


async def test_servers_share_a_rate_through_redis(redis: Redis) -> None:
    key = info(f"b{time.time_ns()}", rate="5/hour")
    servers = [RateLimits(redis.url), RateLimits(redis.url)]
    for number in range(5):
        await servers[number % 2].check(key)
    for server in servers:
        with pytest.raises(RateLimited):
            await server.check(key)
        await server.close()


async def test_without_redis_each_server_counts_by_itself(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    key = info(f"c{time.time_ns()}", rate="2/hour")
    limits = RateLimits(redis.url)
    await limits.check(key)
    redis.stop()
    try:
        for _ in range(2):
            await limits.check(key)
        with pytest.raises(RateLimited):
            await limits.check(key)
    finally:
        redis.start()
    assert len([record for record in caplog.records if "this server counts its own" in record.message]) == 1
    await limits.close()


# The database away


async def test_known_keys_work_on_while_the_database_is_away(postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgresql.new_database()
    with Database(url) as database:
        key = KeyStore(database).create(info())
    monkeypatch.setattr(stored_keys, "POLL_S", 0.1)
    async with serving(url, keys_outage_s=3) as client:
        assert (await ask(client, key)).status_code == 200
        postgresql.stop()
        try:
            unknown = await ask(client, "f2_" + "x" * 40)
            assert (unknown.status_code, unknown.json()["code"]) == (503, "keys_unavailable")
            assert int(unknown.headers["retry-after"]) > 0
            assert "127.0.0.1" not in unknown.text
            assert (await ask(client, "not-of-a-database")).status_code == 401
            assert (await ask(client, key)).status_code == 200
            deadline = time.monotonic() + 10
            while (await ask(client, key)).status_code == 200:  # not for ever
                assert time.monotonic() < deadline
                await asyncio.sleep(0.2)
        finally:
            postgresql.start()
        deadline = time.monotonic() + 10
        while (await ask(client, key)).status_code != 200:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        usage = (await client.get("/usage", headers=bearer(key))).json()["usage"]
    assert usage[0]["requests"] >= 3  # what was answered meanwhile was kept in the journal


async def test_a_database_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.sqlite"
    with Database(url) as database:
        key = KeyStore(database).create(info())
    monkeypatch.setattr(stored_keys, "LOOK_S", 0.1)
    monkeypatch.setattr(stored_keys, "POLL_S", 0.1)
    goes_on, read = threading.Event(), KeyStore.revision

    def hang(store: KeyStore) -> int:
        goes_on.wait(10)
        return read(store)

    async with serving(url) as client:
        monkeypatch.setattr(KeyStore, "revision", hang)
        unknown = await asyncio.wait_for(ask(client, "f2_" + "x" * 40), 5)
        assert (unknown.status_code, unknown.json()["code"]) == (503, "keys_unavailable")
        assert (await ask(client, key)).status_code == 200
        goes_on.set()
        deadline = time.monotonic() + 5
        while (await ask(client, "f2_" + "x" * 40)).status_code != 401:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
