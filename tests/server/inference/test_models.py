"""Models: one id for all names, one load for all who wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.fake_engine import FakeEngine
from florence2.errors import DownloadError, EngineDied, InvalidOption, ModelNotFound
from florence2.server.errors import Draining, ModelFailed, ModelLoading
from florence2.server.inference.models import Models
from florence2.server.roboflow.answers import registry
from florence2.server.roboflow.model_ids import FOREIGN_IDS
from florence2.server.settings import Settings
from tests.server.fakes import body, client_of

pytestmark = pytest.mark.anyio


class FakeLoader:
    """Makes fake engines, when it is let."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        self.engines: list[FakeEngine] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.failure: Exception | None = None

    def __call__(self, source: str, adapters: Sequence[str] = ()) -> FakeEngine:
        self.sources.append(source if not adapters else f"{source} + {' + '.join(adapters)}")
        assert self.may_go_on.wait(10)
        if self.failure is not None:
            raise self.failure
        self.engines.append(FakeEngine())
        return self.engines[-1]


def models_of(loader: FakeLoader | None = None, **settings: Any) -> Models:
    return Models(Settings(**settings), loader or FakeLoader(), api_ids=FOREIGN_IDS)


@pytest.mark.parametrize("name", ["florence-2-base", "florence-pretrains/1", "florence-pretrains/3", "/florence-pretrains/3/"])
def test_names_of_base(name: str) -> None:
    assert models_of().canonical(name) == "florence-2-base"


@pytest.mark.parametrize("name", ["florence-2-large", "florence-pretrains/2", "florence-pretrains/4"])
def test_names_of_large(name: str) -> None:
    assert models_of().canonical(name) == "florence-2-large"


@pytest.mark.parametrize(
    "name", ["", "nope/1", "florence-pretrains/5", "FLORENCE-2-BASE", "microsoft/Florence-2-base", ".", "florence-2-base@x"]
)
def test_names_of_none(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        models_of().canonical(name)
    assert caught.value.field == "model_id"


def test_what_may_be_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    folder.mkdir()
    named = models_of(loadable="named", model=[str(folder), "florence-pretrains/3"], models={"mine": "owner/name"})
    assert named.known == ["shapes", "florence-2-base", "mine"]
    assert named.canonical("florence-pretrains/1") == "florence-2-base"
    for name in ("florence-2-large", str(folder), "owner/name"):
        with pytest.raises(ModelNotFound):
            named.canonical(name)
    every = models_of(loadable="any")
    for name in ("owner/name", "owner/name@main", "florence-2-large@abc"):
        assert every.canonical(name) == name
    for name in ("a/b/c", "../x", "src/florence2", "/etc"):
        with pytest.raises(ModelNotFound):
            every.canonical(name)


async def test_names_of_ones_own_win() -> None:
    loader = FakeLoader()
    models = models_of(loader, models={"florence-2-base": "/data/base"})
    await models.get("florence-pretrains/3")
    assert loader.sources == ["/data/base"]


async def test_loaded_once_for_all_who_wait() -> None:
    loader = FakeLoader()
    loader.may_go_on.clear()
    models = models_of(loader)
    names = ["florence-2-base", "florence-pretrains/1", "florence-pretrains/3"] * 3
    waiting = [asyncio.create_task(models.get(name)) for name in names]
    await asyncio.sleep(0.05)
    loader.may_go_on.set()
    found = await asyncio.gather(*waiting)
    assert loader.sources == ["florence-2-base"]
    assert {id(model) for model, _ in found} == {id(models.loaded[0])}
    assert all(is_cold for _, is_cold in found)
    assert (await models.get("florence-2-base"))[1] is False
    assert len(registry(models, models.loaded).models) == 1


async def test_who_leaves_does_not_end_the_loading() -> None:
    loader = FakeLoader()
    loader.may_go_on.clear()
    models = models_of(loader)
    first, second = (asyncio.create_task(models.get("florence-2-base")) for _ in range(2))
    await asyncio.sleep(0.05)
    first.cancel()
    loader.may_go_on.set()
    assert (await second)[0].id == "florence-2-base"
    assert loader.sources == ["florence-2-base"]


async def test_loading_that_takes_too_long_goes_on() -> None:
    loader = FakeLoader()
    loader.may_go_on.clear()
    models = models_of(loader)
    with pytest.raises(ModelLoading):
        await models.get("florence-2-base", 0.02)
    loader.may_go_on.set()
    await models.get("florence-2-base")
    assert loader.sources == ["florence-2-base"]


async def test_failed_loading_is_tried_again() -> None:
    loader = FakeLoader()
    models = models_of(loader)
    loader.failure = MemoryError("secret")
    with pytest.raises(ModelFailed):
        await models.get("florence-2-base")
    loader.failure = DownloadError("the hub is away")
    with pytest.raises(DownloadError):
        await models.get("florence-2-base")
    loader.failure = None
    assert (await models.get("florence-2-base"))[0].id == "florence-2-base"


async def test_fault_in_the_settings_is_not_the_clients() -> None:
    loader = FakeLoader()
    loader.failure = ModelNotFound("there is no folder /secret")
    with pytest.raises(ModelFailed):
        await models_of(loader, models={"mine": "/secret"}).get("mine")


async def test_removing_lets_the_engine_finish() -> None:
    loader = FakeLoader()
    models = models_of(loader)
    await models.get("florence-2-base")
    models.remove("florence-pretrains/1")
    assert models.loaded == []
    await models.close(cancel=True)
    assert loader.engines[0].is_closed


async def test_least_used_goes_first_and_named_ones_stay() -> None:
    models = models_of(max_loaded_models=2, model=["florence-2-demo"])
    await models.preload()
    for name in ("florence-2-base", "florence-2-large"):
        await models.get(name)
        time.sleep(0.002)
    assert [model.id for model in models.loaded] == ["florence-2-demo", "florence-2-large"]
    await models.close(cancel=False)


async def test_closed_models_load_no_more() -> None:
    models = models_of()
    await models.close(cancel=True)
    with pytest.raises(Draining):
        await models.get("florence-2-base")


async def test_requests_while_the_server_starts() -> None:
    loader = FakeLoader()
    loader.may_go_on.clear()
    async with client_of(loader=loader, model_wait_s=0.05) as client:
        state = await client.get("/readiness")
        alive = await client.get("/healthz")
        early = await client.post("/infer/lmm", json=body(model_id="florence-2-demo"))
        loader.may_go_on.set()
        while (await client.get("/readiness")).status_code != 200:
            await asyncio.sleep(0.01)
        ready = await client.post("/infer/lmm", json=body(model_id="florence-2-demo"))
    assert (state.status_code, state.json()["reason"]) == (503, "loading")
    assert alive.status_code == 200
    assert (early.status_code, early.json()["code"], early.headers["retry-after"]) == (503, "model_loading", "1")
    assert ready.status_code == 200


async def test_model_that_can_not_be_loaded_at_the_start() -> None:
    loader = FakeLoader()
    loader.failure = RuntimeError("broken")
    async with client_of(loader=loader) as client:
        while (await client.get("/readiness")).json()["reason"] == "loading":
            await asyncio.sleep(0.01)
        response = await client.post("/infer/lmm", json=body(model_id="florence-2-demo"))
    assert (response.status_code, response.json()["code"]) == (500, "model_failed")
    assert "broken" not in response.text


async def test_hosted_services_manage_nothing_for_clients() -> None:
    async with client_of(allow_model_management=False, allow_model_registry=False, metrics=False) as client:
        for path in ("/model/add", "/model/remove", "/model/clear"):
            assert (await client.post(path, json={"model_id": "florence-2-base"})).json()["code"] == "not_offered"
        for path in ("/model/registry", "/metrics"):
            assert (await client.get(path)).status_code == 403


@pytest.mark.parametrize("revision", ["a\nforged line", "a b", "x" * 5000, "a\r\nx", "\x1b[31m", "é", "-x", "../../x@y"])
async def test_revisions_that_are_none(revision: str, caplog: pytest.LogCaptureFixture) -> None:
    loader = FakeLoader()
    async with client_of(loader=loader, loadable="any") as client:
        response = await client.post("/infer/lmm", json=body(model_id=f"owner/name@{revision}"))
    assert (response.status_code, response.json()["code"]) in ((404, "model_not_found"), (422, "validation_failed"))
    assert len(response.content) < 2000
    assert "forged line" not in "".join(record.getMessage() + "\n" for record in caplog.records).split("\n")
    assert f"owner/name@{revision}" not in loader.sources


async def test_revisions_as_people_write_them() -> None:
    for revision in ("main", "refs/pr/6", "v1.0-rc.1", "0123456789abcdef0123456789abcdef01234567"):
        assert models_of(loadable="any").canonical(f"owner/name@{revision}") == f"owner/name@{revision}"


async def test_what_a_client_made_fail_is_one_line_without_folders(caplog: pytest.LogCaptureFixture) -> None:
    loader = FakeLoader()
    loader.failure = DownloadError("the hub is unreachable, and /home/someone/.cache has no copy")
    async with client_of(loader=loader, loadable="any") as client:
        response = await client.post("/model/add", json={"model_id": "owner/name"})
    assert (response.status_code, response.json()["code"]) == (502, "download_failed")
    assert "/home" not in response.text
    told = [record for record in caplog.records if "owner/name failed" in record.getMessage()]
    assert [record.exc_info for record in told] == [None]
    assert "/home/someone" in told[0].getMessage()


async def test_the_description_has_the_errors_of_management() -> None:
    async with client_of() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    for path in ("/model/add", "/model/remove", "/model/clear"):
        assert {"401", "403", "404", "422", "502"} <= paths[path]["post"]["responses"].keys()


async def test_adapters_are_merged_into_the_model_that_they_are_for() -> None:
    loader = FakeLoader()
    models = models_of(loader, model=["florence-2-base"], adapter=["owner/cats", "florence-2-base=owner/dogs"])
    await models.preload()
    await models.get("florence-2-large")
    assert loader.sources == ["florence-2-base + owner/cats + owner/dogs", "florence-2-large"]
    loader = FakeLoader()
    models = models_of(loader, model=["plain=florence-2-base", "cats=florence-2-base"], adapter=["cats=owner/cats"])
    await models.preload()
    assert loader.sources == ["florence-2-base", "florence-2-base + owner/cats"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model": ["florence-2-base", "florence-2-large"], "adapter": ["owner/cats"]}, "could be for florence-2-base or florence-2-large"),
        ({"model": ["florence-2-base"], "adapter": ["cats=owner/cats"]}, "is for 'cats', and there is florence-2-base"),
        ({"model": [], "adapter": ["owner/cats"]}, "could be for no model at the start"),
    ],
)
def test_adapters_of_no_model_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOption, match=told):
        models_of(**settings)


def test_a_source_that_is_a_path_goes_by_its_whole_name() -> None:
    assert models_of(model=["/no/such/folder"]).canonical("/no/such/folder") == "/no/such/folder"


async def test_model_that_ends_the_process_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = FakeLoader()
    models = models_of(loader, models={"mine": "owner/name"}, model=["florence-2-base"])
    loader.failure = EngineDied()  # the process had ended before: not this model's fault
    for _ in range(4):
        with pytest.raises(EngineDied):
            await models.get("mine")
    loader.failure.has_ended_loading = True
    for _ in range(3):
        with pytest.raises(EngineDied):
            await models.get("mine")
    with pytest.raises(ModelFailed, match="3 times in a row while it loaded mine"):
        await models.get("mine")
    assert len(loader.sources) == 7
    for _ in range(4):
        with pytest.raises(EngineDied):
            await models.get("florence-2-base")
    monkeypatch.setattr("florence2.server.inference.fatal_loads.PAUSE_S", 0.0)
    loader.failure = None
    await models.get("mine")
    await models.close(cancel=True)
