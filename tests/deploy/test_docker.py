"""The images: what they are built from is there, what they name exists, and they run as what the manifests expect."""

from __future__ import annotations

import difflib
import fnmatch
import importlib.util
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from florence2.server.http import health
from florence2.server.settings import Settings
from tests.deploy.files import DOCKERFILES, ROOT, environment_of, instructions, settings_of, values_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
each = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)


def arguments(path: Path) -> dict[str, str]:
    """Each build argument with its default."""
    return {name: value for name, _, value in (rest.partition("=") for rest in values_of(path, "ARG")) if value}


def is_sent(name: str) -> bool:
    """Whether a file of the repository is part of the build's context."""
    rules = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    sent = True
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        if fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}/") or fnmatch.fnmatch(Path(name).name, pattern):
            sent = rule.startswith("!")
    return sent


def test_there_is_one_for_processors_and_one_for_gpus() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile", "Dockerfile.cuda"]


@each
def test_what_is_copied_is_there_and_sent(path: Path) -> None:
    sources = [word for rest in values_of(path, "COPY") if not rest.startswith("--from") for word in rest.split()[:-1]]
    assert {"constraints.txt", "pyproject.toml", "src"} <= set(sources)
    for name in sources:
        assert (ROOT / name).exists(), name
        assert is_sent(name), name


def test_what_the_context_leaves_out() -> None:
    assert not any(
        is_sent(name) for name in (".git/config", ".venv/bin/python", "keys.txt", "deploy/compose/.env", "src/florence2/__pycache__")
    )


@each
def test_stages_that_are_named_come_before(path: Path) -> None:
    names: set[str] = set()
    for word, rest in instructions(path):
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            assert image in names or image.startswith("python:${PYTHON}-slim"), rest
            names.add(name)
        if rest.startswith("--from="):
            assert rest.split()[0].removeprefix("--from=") in names


@each
def test_the_python_and_the_extras_are_those_of_the_project(path: Path) -> None:
    given = arguments(path)
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{given['PYTHON']}.0")
    assert f"Programming Language :: Python :: {given['PYTHON']}" in PROJECT["classifiers"]
    assert set(given["EXTRAS"].split(",")) <= set(PROJECT["optional-dependencies"])
    assert 'pip install --constraint constraints.txt ".[${EXTRAS}]"' in values_of(path, "RUN")


def test_torch_comes_from_where_setup_takes_it() -> None:
    spec = importlib.util.spec_from_file_location("torch_build", ROOT / ".ci" / "torch_build.py")
    assert spec is not None
    assert spec.loader is not None
    torch_build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(torch_build)
    assert arguments(DOCKERFILES[0])["TORCH_INDEX"] == torch_build.CPU_INDEX
    assert "TORCH_INDEX" not in arguments(DOCKERFILES[1])


@each
def test_settings_in_the_image_exist_and_are_right(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = environment_of(path)
    names = {name.removeprefix("FLORENCE2_").lower() for name in environment if name.startswith("FLORENCE2_")}
    assert names
    assert names <= set(Settings.model_fields)
    settings = settings_of(environment, monkeypatch)
    assert settings.host == "0.0.0.0"
    assert settings.require_keys
    assert not settings.allow_anonymous


@each
def test_it_runs_as_a_user_by_number_on_the_servers_port(path: Path) -> None:
    (user,), (port,) = values_of(path, "USER"), values_of(path, "EXPOSE")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert int(port) == Settings.model_fields["port"].default
    assert values_of(path, "STOPSIGNAL") == ["SIGTERM"]
    (volumes,) = values_of(path, "VOLUME")
    folders = json.loads(volumes)
    environment = environment_of(path)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "HF_HOME"):
        assert any(f"{environment[name]}/".startswith(f"{folder}/") for folder in folders), name
    (made,) = re.findall(r"install --directory .*?(/\S.*)$", next(rest for rest in values_of(path, "RUN") if "useradd" in rest))
    assert made.split() == folders
    assert f"--uid {user.partition(':')[0]}" in next(rest for rest in values_of(path, "RUN") if "useradd" in rest)


@each
def test_commands_are_lists_so_that_signals_reach_the_server(path: Path) -> None:
    assert [json.loads(rest) for word, rest in instructions(path) if word in ("ENTRYPOINT", "CMD")] == [["florence2"], ["serve"]]
    assert "florence2" in PROJECT["scripts"]


@each
def test_the_health_check_is_the_packages_own(path: Path) -> None:
    (check,) = values_of(path, "HEALTHCHECK")
    options, _, command = check.partition(" CMD ")
    program, _, module, *rest = json.loads(command)
    assert program == "python"
    assert importlib.util.find_spec(module) is not None
    assert all(name in {route.path for route in health.router.routes} for name in rest)  # pyright: ignore[reportAttributeAccessIssue]
    assert {word.partition("=")[0] for word in shlex.split(options)} == {"--interval", "--timeout", "--start-period", "--retries"}


def test_the_two_images_differ_by_torch_and_the_driver_alone() -> None:
    cpu, cuda = (["".join(pair) for pair in instructions(path)] for path in DOCKERFILES)
    different = [line for line in difflib.ndiff(cpu, cuda) if line[0] in "+-"]
    assert len(different) == 6
    assert all("torch" in line.lower() or "NVIDIA" in line or "install --yes" in line or line.startswith("- ENV") for line in different)
    assert any("gcc libc6-dev" in line for line in different)  # for Triton
