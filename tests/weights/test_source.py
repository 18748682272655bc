"""From a name to a folder, without any network."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.checkpoints import write_json
from florence2.errors import CheckpointError, ModelNotFound
from florence2.weights import ALIASES, hub, resolve, resolve_adapter


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str | None]]:
    """What would have been fetched; the working directory is an empty one."""
    calls: list[tuple[str, str | None]] = []

    def fetch(repository: str, revision: str | None = None) -> Path:
        calls.append((repository, revision))
        return tmp_path

    monkeypatch.setattr(hub, "fetch", fetch)
    monkeypatch.chdir(tmp_path)
    return calls


@pytest.mark.parametrize("alias", ["florence-2-base", "florence-2-large", "florence-2-base-ft", "florence-2-large-ft"])
def test_aliases_mean_published_repositories(alias: str, asked: list):
    resolve(alias)
    resolve(f"{alias}@refs/pr/3")
    repository = f"florence-community/Florence-2-{alias.removeprefix('florence-2-')}"
    assert asked == [(repository, None), (repository, "refs/pr/3")]


def test_hub_ids_of_either_layout_go_to_the_hub(asked: list):
    resolve("microsoft/Florence-2-base")
    resolve("some.one/My_Florence-2@v1.0")
    assert asked == [("microsoft/Florence-2-base", None), ("some.one/My_Florence-2", "v1.0")]


def test_folders_are_taken_as_they_are(asked: list, tmp_path: Path):
    folder = tmp_path / "my@model"
    folder.mkdir()
    assert resolve(folder) == folder
    assert resolve("./my@model") == folder
    assert resolve("my@model") == folder
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name").mkdir()
    assert resolve("owner/name") == tmp_path / "owner" / "name"
    assert asked == []


def test_an_alias_yields_only_to_a_folder_with_a_checkpoint(asked: list, tmp_path: Path):
    folder = tmp_path / "florence-2-base"
    folder.mkdir()
    resolve("florence-2-base")
    assert len(asked) == 1
    write_json(folder / "config.json", {})
    assert resolve("florence-2-base") == folder


def test_an_unknown_alias_names_the_known_ones_and_the_closest(asked: list):
    with pytest.raises(ModelNotFound, match=r"'florence2-base-ftt'.*mean florence-2-base-ft\?.*florence-2-large") as raised:
        resolve("florence2-base-ftt")
    assert raised.value.field == "model"
    with pytest.raises(ModelNotFound) as raised:
        resolve("resnet")
    assert "Did you mean" not in raised.value.message


@pytest.mark.parametrize("path", ["./absent/model", "/absent/model", "~/absent-model", "../absent-model"])
def test_a_path_that_is_not_there_is_no_hub_id(asked: list, path: str):
    with pytest.raises(ModelNotFound, match="There is no folder /"):
        resolve(path)
    assert asked == []


def test_a_file_is_refused_with_its_folder(asked: list, tmp_path: Path):
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(ModelNotFound, match=f"got the file.*{tmp_path}$"):
        resolve(str(file))
    with pytest.raises(ModelNotFound, match="got the file"):
        resolve("model.safetensors")
    with pytest.raises(ModelNotFound, match="There is no folder"):
        resolve(tmp_path / "absent")


def test_the_packaged_checkpoint_has_no_revisions(asked: list):
    with pytest.raises(ModelNotFound, match="no revisions"):
        resolve("florence-2-demo@main")
    assert ALIASES["florence-2-demo"].repository is None


def test_the_packaged_checkpoint_is_a_folder_of_the_package(asked: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("florence2.weights.source.resources.files", lambda package: tmp_path / package)
    with pytest.raises(ModelNotFound, match="florence-2-demo is not part of this installation"):
        resolve("florence-2-demo")
    folder = tmp_path / "florence2" / "demo"
    folder.mkdir(parents=True)
    write_json(folder / "config.json", {})
    assert resolve("florence-2-demo") == folder
    assert asked == []


@pytest.mark.parametrize("name", ["x" * 5000, "./" + "x" * 5000, "a\0b", "./a\0b", "/" + "y/" * 4000, "~" + "x" * 5000])
def test_what_can_not_be_a_path_is_not_there(name: str):
    with pytest.raises(ModelNotFound) as told:
        resolve(name)
    assert len(told.value.message) < 500


@pytest.mark.parametrize("name", ["nothing", "florence-2-base", "./runs/adapter", "runs/cats/adapter"])
def test_an_adapter_that_is_not_there_is_told_as_an_adapter(asked: list, name: str):
    with pytest.raises(ModelNotFound, match=rf"there is no adapter '{name}': give a folder with adapter_config\.json"):
        resolve_adapter(name)
    assert asked == []


def test_adapters_are_folders_that_hold_one_or_hub_ids(asked: list, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"is no adapter: expected adapter_config\.json"):
        resolve_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert resolve_adapter(tmp_path) == resolve_adapter(str(tmp_path)) == tmp_path
    assert asked == []
    assert resolve_adapter("owner/cats@main") == tmp_path
    assert asked == [("owner/cats", "main")]
