"""Names of models: two models never share one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.fake_engine import FakeEngine
from florence2.errors import InvalidOption
from florence2.server.inference.model_names import name_models
from florence2.server.roboflow.model_ids import FOREIGN_IDS
from florence2.server.settings import Settings
from tests.server.fakes import body, client_of


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("a/checkpoint", "b/checkpoint", "b/a/checkpoint", "lr=0.1/checkpoint", "x/florence-2-base", "my fine tune"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "best").symlink_to("a/checkpoint")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["a/checkpoint"], {"checkpoint": "a/checkpoint"}),
        (["a/checkpoint", "b/checkpoint"], {"a/checkpoint": "a/checkpoint", "b/checkpoint": "b/checkpoint"}),
        (["a/checkpoint", "./a/../a/checkpoint/"], {"checkpoint": "a/checkpoint"}),
        (["b/a/checkpoint", "b/checkpoint"], {"a/checkpoint": "b/a/checkpoint", "b/checkpoint": "b/checkpoint"}),
        (["cars=a/checkpoint", "b/checkpoint"], {"cars": "a/checkpoint", "checkpoint": "b/checkpoint"}),
        (["checkpoint=a/checkpoint", "b/checkpoint"], {"checkpoint": "a/checkpoint", "b/checkpoint": "b/checkpoint"}),
        (["b/checkpoint", "checkpoint=a/checkpoint"], {"b/checkpoint": "b/checkpoint", "checkpoint": "a/checkpoint"}),
        (["lr=0.1/checkpoint"], {"checkpoint": "lr=0.1/checkpoint"}),
        (["lr=lr=0.1/checkpoint"], {"lr": "lr=0.1/checkpoint"}),
        (["x/florence-2-base"], {"florence-2-base": "x/florence-2-base"}),
        (["best", "a/checkpoint"], {"best": "best", "checkpoint": "a/checkpoint"}),
        (["my fine tune"], {"my fine tune": "my fine tune"}),
        (["team/cars=a/checkpoint", "team/cars=a/checkpoint"], {"team/cars": "a/checkpoint"}),
    ],
)
def test_folders(root: Path, sources: list[str], names: dict[str, str]) -> None:
    assert name_models(sources, {}) == {name: str(root / folder) for name, folder in names.items()}


def test_three_levels_are_told_apart(root: Path) -> None:
    found = name_models(["a/checkpoint", "b/a/checkpoint", "b/checkpoint"], {})
    assert list(found.values()) == [str(root / folder) for folder in ("a/checkpoint", "b/a/checkpoint", "b/checkpoint")]
    assert list(found)[1:] == ["b/a/checkpoint", "b/checkpoint"]
    assert len(found) == 3


def test_a_folder_makes_way_for_an_alias_and_for_a_name_of_the_settings(root: Path) -> None:
    found = name_models(["x/florence-2-base", "florence-pretrains/3", "a/checkpoint"], {"checkpoint": "owner/name"}, FOREIGN_IDS)
    assert found == {
        "x/florence-2-base": str(root / "x/florence-2-base"),
        "florence-2-base": "florence-2-base",
        "a/checkpoint": str(root / "a/checkpoint"),
    }
    assert name_models(["checkpoint"], {"checkpoint": "owner/name"}) == {"checkpoint": "owner/name"}
    assert name_models(["base=florence-2-base", "owner/name@main"], {}) == {"base": "florence-2-base", "owner/name@main": "owner/name@main"}


@pytest.mark.parametrize(
    ("sources", "models"),
    [
        (["cars=a/checkpoint", "cars=b/checkpoint"], {}),
        (["florence-2-base=a/checkpoint", "florence-2-base"], {}),
        (["cars=a/checkpoint"], {"cars": "b/checkpoint"}),
        (["cars="], {}),
        (["/"], {}),
    ],
)
def test_two_models_under_one_name_are_refused(root: Path, sources: list[str], models: dict[str, str]) -> None:
    with pytest.raises(InvalidOption, match="NAME=") as caught:
        name_models(sources, models)
    assert caught.value.field == "model"


@pytest.mark.parametrize("name", ["", " ", "a\nb", " a", "a\x7f"])
def test_a_name_that_cannot_be_shown_is_refused(root: Path, name: str) -> None:
    with pytest.raises(InvalidOption, match="printable"):
        name_models(["florence-2-demo"], {name: "florence-2-demo"})


def test_the_same_source_twice_is_one_model(root: Path) -> None:
    assert name_models(["cars=a/checkpoint"], {"cars": "./a/checkpoint"}) == {"cars": str(root / "a/checkpoint")}


@pytest.mark.anyio
async def test_both_answer_under_their_names(root: Path) -> None:
    engines: dict[str, FakeEngine] = {}

    def load(source: str) -> FakeEngine:
        return engines.setdefault(source, FakeEngine())

    async with client_of(loader=load, model="a/checkpoint,b/checkpoint", models={"a-checkpoint": "a/checkpoint"}) as client:
        for name in ("a/checkpoint", "b/checkpoint"):
            response = await client.post(f"/infer/lmm/{name}", json=body(model_id=name))
            assert (response.status_code, response.headers["x-model-id"]) == (200, name)
            assert len(engines[str(root / name)].asked) == 1
        unclear = await client.post("/infer/lmm", json=body(model_id="checkpoint"))
        assert unclear.status_code == 404
        assert "a/checkpoint, b/checkpoint" in unclear.json()["message"]
        await client.post("/infer/lmm", json=body(model_id="a-checkpoint"))
        text = (await client.get("/metrics")).text
    gauges = [line.split()[0] for line in text.splitlines() if line.startswith("num_inferences_")]
    assert sorted(gauges) == [
        "num_inferences_a_checkpoint",
        "num_inferences_a_checkpoint_2",
        "num_inferences_b_checkpoint",
        "num_inferences_total",
    ]


def test_name_on_the_command_line_reaches_the_settings() -> None:
    assert Settings(model="cars=/data/cars,florence-2-base").model == ["cars=/data/cars", "florence-2-base"]  # type: ignore[arg-type]
