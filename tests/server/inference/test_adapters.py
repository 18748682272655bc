"""Models that are adapters over another: its weights are loaded once, and it stays as long as they are used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from fixtures.fake_engine import FakeEngine
from florence2.errors import EngineClosed, InvalidOption
from florence2.server.errors import ModelFailed
from florence2.server.inference.adapters import AdapterView
from florence2.server.inference.model_names import Over, find_bases, name_models
from florence2.server.openai.model_list import model_entry
from florence2.server.roboflow.answers import registry
from florence2.server.roboflow.model_ids import FOREIGN_IDS
from tests.server.fakes import body, client_of
from tests.server.inference.test_models import FakeLoader, models_of

OVER = {"mine": "florence-2-base+owner/mine", "yours": "florence-2-base+owner/yours"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("c++/base", "runs/a+b", "runs/adapter", "demo+x"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_bases_and_adapters(root: Path) -> None:
    sources = {
        "alias": "florence-2-base+runs/adapter",
        "foreign": "florence-pretrains/3+owner/adapter",
        "folders": "c++/base+runs/a+b",
        "again": "./c++/base + runs/adapter",
        "cars": "owner/cars@main",
        "over cars": "cars+runs/adapter",
        "same source": "owner/cars@main+owner/other@v1",
        "a folder": "demo+x",
    }
    named, over = find_bases(sources, FOREIGN_IDS)
    adapter = str(root / "runs/adapter")
    assert over == {
        "alias": Over("florence-2-base", adapter),
        "foreign": Over("florence-2-base", "owner/adapter"),
        "folders": Over("base", str(root / "runs/a+b")),
        "again": Over("base", adapter),
        "over cars": Over("cars", adapter),
        "same source": Over("cars", "owner/other@v1"),
    }
    assert {name: named[name] for name in set(named) - set(sources)} == {
        "florence-2-base": "florence-2-base",
        "base": str(root / "c++/base"),
    }
    assert name_models(["mine=florence-2-base+runs/adapter"], {}) == {"mine": "florence-2-base+runs/adapter"}


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"mine": "florence-2-base+"}, "one of the two is missing"),
        ({"mine": "+owner/mine"}, "one of the two is missing"),
        ({"mine": "florence-2-base+owner/a", "more": "mine+owner/b"}, "which is one itself"),
    ],
)
def test_wrong_sources(sources: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        models_of(models=sources)


def test_an_adapter_needs_a_name() -> None:
    with pytest.raises(InvalidOption, match=r"needs a name: NAME=florence-2-base\+owner/mine"):
        models_of(model=["florence-2-base+owner/mine"])


@pytest.mark.anyio
async def test_the_base_is_loaded_once_for_all() -> None:
    loader = FakeLoader()
    models = models_of(loader, models=OVER, loadable="named")
    assert models.known == ["florence-2-demo", *OVER, "florence-2-base"]
    found = await asyncio.gather(*(models.get(name) for name in ("mine", "yours", "florence-2-base", "mine")))
    assert loader.sources == ["florence-2-base"]
    mine, yours, base = (found[index][0].engine for index in range(3))
    assert isinstance(mine, AdapterView)
    assert isinstance(yours, AdapterView)
    assert mine.base is yours.base is base is loader.engines[0]
    assert sorted(loader.engines[0].adapters.values()) == ["owner/mine", "owner/yours"]
    assert {entry.model_id for entry in registry(models, models.loaded).models} == {"mine", "yours", "florence-2-base"}
    assert model_entry(models, "mine").owned_by == "owner"


@pytest.mark.anyio
async def test_dropping() -> None:
    loader = FakeLoader()
    models = models_of(loader, models=OVER)
    await asyncio.gather(*(models.get(name) for name in OVER))
    engine = loader.engines[0]
    models.remove("mine")
    await asyncio.sleep(0.05)
    assert list(engine.adapters.values()) == ["owner/yours"]
    assert not engine.is_closed
    await models.get("mine")  # its weights alone are loaded again
    assert len(loader.engines) == 1
    models.remove("florence-2-base")
    await asyncio.sleep(0.05)
    assert engine.is_closed
    assert models.loaded == []
    await models.get("mine")
    assert len(loader.engines) == 2


@pytest.mark.anyio
async def test_a_base_counts_as_used_when_its_adapters_are_and_adapters_take_no_place_of_a_model() -> None:
    models = models_of(models={**OVER, "old": "owner/old", "new": "owner/new"}, max_loaded_models=2)
    for name in ("mine", "yours", "old", "mine", "new"):
        await models.get(name)
    assert {model.id for model in models.loaded} == {"florence-2-base", "mine", "yours", "new"}


@pytest.mark.anyio
async def test_an_engine_that_has_closed_takes_all_that_share_it() -> None:
    loader = FakeLoader()
    models = models_of(loader, models=OVER)
    mine, _ = await models.get("mine")
    await models.get("yours")
    models.discard(mine)
    assert models.loaded == []


@pytest.mark.anyio
async def test_an_engine_that_is_lost_takes_all_that_share_it() -> None:
    loader = FakeLoader()
    models = models_of(loader, models={**OVER, "other": "owner/other"})
    for name in (*OVER, "other"):
        await models.get(name)
    models.forget(lambda engine: engine is loader.engines[0])
    assert [model.id for model in models.loaded] == ["other"]


@pytest.mark.anyio
async def test_what_needs_merging_has_weights_of_its_own() -> None:
    loader = FakeLoader()
    models = models_of(loader, models={"mine": "florence-2-base+owner/dora"})
    model, _ = await models.get("mine")
    assert loader.sources == ["florence-2-base", "florence-2-base + owner/dora"]
    assert model.engine is loader.engines[1]


@pytest.mark.anyio
async def test_a_base_that_fails_says_so() -> None:
    loader = FakeLoader()
    loader.failure = EngineClosed("gone")
    models = models_of(loader, models=OVER)
    with pytest.raises(ModelFailed, match=r"mine can't be loaded: .*florence-2-base"):
        await models.get("mine")


@pytest.mark.anyio
async def test_requests_name_the_adapter() -> None:
    engine = FakeEngine()

    def load(source: str, adapters: Sequence[str] = ()) -> FakeEngine:
        return engine

    async with client_of(loader=load, model=["florence-2-base"], models=OVER) as client:
        for model_id in ("florence-2-base", "mine", "yours"):
            response = await client.post("/infer/lmm", json=body(model_id=model_id))
            assert response.status_code == 200, response.text
            assert response.headers["x-model-id"] == model_id
        listed = {entry["id"] for entry in (await client.get("/v1/models")).json()["data"]}
    assert [asked.get("adapter", "").partition("#")[0] for asked in engine.asked] == ["", "mine", "yours"]
    assert {"florence-2-base", *OVER} <= listed
