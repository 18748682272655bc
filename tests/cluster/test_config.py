"""What a cluster is made of: read from a file, flags and the environment, the same on every machine."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from florence2.cluster.commands import Flags, read_flags
from florence2.cluster.config import ClusterConfig, cluster_config
from florence2.cluster.nodes import lacking
from florence2.errors import InvalidOption

KEY = "a-key-of-the-test-1234"


@pytest.fixture(autouse=True)
def no_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def read(folder: Path, text: str, *, is_here: bool = False, **flags: object) -> ClusterConfig:
    path = folder / "cluster.yaml"
    path.write_text(text)
    settings = {name: value for name, value in flags.items() if name not in ("engines", "cpus", "gpus")}
    own = {name: flags[name] for name in ("engines", "cpus", "gpus") if name in flags}
    return read_flags(Flags(path, settings, **own), is_here=is_here)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("engines:\n  max_replica: 4\n", "line 2: there is no engines.max_replica (did you mean max_replicas?)"),
        ("engine: {}\n", "line 1: there is no engine (did you mean engines?)"),
        ("engines:\n  num_cpus: 0\n", "line 2: engines.num_cpus must be greater than 0"),
        ("engines:\n  min_replicas: 4\n  max_replicas: 2\n", "line 1: engines min_replicas is at most max_replicas, got 4 and 2"),
        ("routing: images\n", "line 1: routing must be 'image' or 'load'"),
        ("settings:\n  modle: x\n", "line 2)"),
        ("settings:\n  modle: x\n", "(did you mean model?)"),
        ("settings:\n  max_images: none\n", "cluster.yaml, line 2) must be a whole number"),
        ("engines: [1, 2\n", "line 2 is no YAML"),
        ("- a\n", "holds no mapping"),
        ("routing: image\nrouting: load\n", "line 2: routing stands there twice"),
        ("settings: {ssl_certfile: a, ssl_keyfile: b}\n", "Ray Serve listens without TLS"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        read(tmp_path, text)
    assert said in caught.value.message


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLORENCE2_MAX_IMAGES", "5")
    monkeypatch.setenv("FLORENCE2_MAX_PROMPTS", "6")
    text = "settings: {max_images: 1, max_prompts: 2, max_tiles: 3}\nengines: {num_cpus: 2, min_replicas: 0}\n"
    config = read(tmp_path, text, max_images=9, engines=(2, 4))
    settings = config.server_settings
    assert (settings.max_images, settings.max_prompts, settings.max_tiles) == (9, 6, 3)
    assert (config.engines.min_replicas, config.engines.max_replicas, config.engines.num_cpus) == (2, 4, 2.0)


def test_it_listens_at_all_addresses_of_a_cluster_and_at_home_on_one_machine(tmp_path: Path) -> None:
    assert read(tmp_path, "").server_settings.host == "0.0.0.0"
    assert read(tmp_path, "", is_here=True).server_settings.host == "127.0.0.1"
    assert read(tmp_path, "", host="10.0.0.1").server_settings.host == "10.0.0.1"


def test_replicas_get_the_settings_as_they_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys.txt").write_text(f"# of the test\n{KEY}\n")
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLORENCE2_MAX_IMAGES", "5")
    config = read(tmp_path, "", api_keys_file=Path("keys.txt"), model=["m=model"])
    monkeypatch.setenv("FLORENCE2_MAX_IMAGES", "7")
    (tmp_path / "keys.txt").unlink()
    there = pickle.loads(pickle.dumps(config.with_settings(config.server_settings))).ingress_settings
    assert (there.max_images, [key.get_secret_value() for key in there.api_keys]) == (5, [KEY])
    assert there.model == [f"m={tmp_path / 'model'}"]


def test_replicas_with_engines_get_no_secrets() -> None:
    config = cluster_config({"settings": {"api_keys": [KEY], "database": "postgresql://u:secret@h/d", "port": 9001}}, "the test")
    sent = pickle.dumps(config.with_settings(config.engine_settings))
    assert KEY.encode() not in sent
    assert b"secret@" not in sent
    assert KEY not in repr(config)


def test_what_has_changed_has_another_version() -> None:
    def versions(**values: object) -> tuple[str, str]:
        config = cluster_config({"settings": {"allow_anonymous": True, **values}}, "the test")
        return config.version_of(config.engine_settings), config.version_of(config.ingress_settings)

    before = versions()
    assert versions() == before
    assert versions(api_keys=[KEY])[0] == before[0]
    assert versions(api_keys=[KEY])[1] != before[1]
    assert versions(model="florence-2-base")[0] != before[0]


def test_too_little_room_is_told_with_what_was_asked_for() -> None:
    config = cluster_config({"engines": {"min_replicas": 3, "num_cpus": 2, "num_gpus": 1}}, "the test")
    said = lacking(config, {"CPU": 4.0})
    assert said is not None
    assert "7 CPUs are asked for and 4 there and 3 GPUs are asked for and 0 there" in said
    assert lacking(config, {"CPU": 7.0, "GPU": 3.0}) is None
