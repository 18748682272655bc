"""The page about containers: files, build arguments, services and commands that it names are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

from florence2.cli.app import commands_of
from tests.deploy.files import DEPLOY, ROOT, values_of
from tests.docs.commands import Command, commands, mentioned

PAGE = ROOT / "docs" / "deploy.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = [command for command in commands(PAGE) if command.text.strip()]
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"


def words(command: Command) -> list[str]:
    return shlex.split(command.text, comments=True)


def blocks() -> str:
    return "\n".join(text for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE) if not language)


def test_files_that_are_named_exist() -> None:
    named = {
        *re.findall(r"deploy/[\w./-]+\.(?:ya?ml|json)|deploy/docker/Dockerfile[\w.]*", blocks()),
        *re.findall(r"\.\./(deploy/[\w./-]+)\)", TEXT),
    }
    assert len(named) >= 3
    for name in named:
        assert (ROOT / name).exists(), name
    for name in re.findall(r"--(?:file|kustomize) (\S+)", blocks()):
        assert (ROOT / name).exists() or (DEPLOY / "compose" / name).exists(), name


def test_build_arguments_are_the_dockerfiles() -> None:
    arguments = {rest.partition("=")[0]: rest.partition("=")[2] for rest in values_of(DOCKERFILE, "ARG") if "=" in rest}
    table = dict(re.findall(r"^\| (`[A-Z_`, ]+`) \| (.*?) \|", TEXT, re.MULTILINE))
    named = [name for names in table for name in re.findall(r"`(\w+)`", names)]
    assert sorted(named) == sorted(arguments)
    assert f"`{arguments['EXTRAS']}`" in table["`EXTRAS`"]
    assert f"`{arguments['PYTHON']}`, `{arguments['DEBIAN']}`" == table["`PYTHON`, `DEBIAN`"]
    assert set(re.findall(r"--build-arg (\w+)=", TEXT)) <= set(arguments)


def test_services_of_compose_are_those_of_the_file() -> None:
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    named = set(re.findall(r"docker compose exec (?:-T )?(\w+)", blocks()))
    assert named == {"server"} <= set(services)


def test_florence2s_commands_and_options_exist() -> None:
    known = commands_of()
    calls = re.findall(r"florence2 ((?:serve|keys|usage|label|cluster|bench)\b[^\n>`]*)", blocks() + "\n".join(mentioned(PAGE)))
    assert len(calls) >= 5
    for call in calls:
        name = call.split()[0]
        assert any(one.split()[0] == name for one in known), call


def test_nothing_is_where_the_page_does_not_say() -> None:
    """Every folder of ``deploy/`` is explained."""
    folders = {path.name for path in DEPLOY.iterdir() if path.is_dir()}
    assert {name for name in folders if f"deploy/{name}" in TEXT} == folders - {"grafana"}
    assert Path(PAGE).exists()
