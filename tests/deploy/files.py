"""The files of ``deploy/``, read: instructions of Dockerfiles, documents of YAML, and the settings that an environment gives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from florence2.server.settings import Settings, read_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted((DEPLOY / "docker").glob("Dockerfile*"))
KUBERNETES, KUBERAY = sorted((DEPLOY / "kubernetes").glob("*.yaml")), sorted((DEPLOY / "kuberay").glob("*.yaml"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """Each instruction of a Dockerfile and what follows it, comments and line ends taken out."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in whole.splitlines() if line.strip())]


def values_of(path: Path, word: str) -> list[str]:
    """What follows each of an instruction of one kind."""
    return [rest for found, rest in instructions(path) if found == word]


def environment_of(path: Path) -> dict[str, str]:
    """The variables of a Dockerfile's last stage."""
    found: dict[str, str] = {}
    for word, rest in instructions(path):
        if word == "FROM":
            found = {}
        elif word == "ENV":
            found |= dict(pair.split("=", 1) for pair in rest.split())
    return found


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a file in YAML."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def find(kind: str, paths: list[Path]) -> dict[str, Any]:
    """The one object of a kind."""
    (item,) = (item for path in paths for item in documents(path) if item.get("kind") == kind)
    return item


def parts(value: Any, name: str) -> Iterator[Any]:
    """Everything that stands under a name, at whatever depth."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if key == name:
            yield inner
        yield from parts(inner, name)


def settings_of(environment: Mapping[str, str], monkeypatch: Any) -> Settings:
    """The settings of a server that is started with these variables."""
    for name, value in environment.items():
        if name.startswith("FLORENCE2_") and "$" not in value:
            monkeypatch.setenv(name, value)
    return read_settings({"database": "postgresql://florence2:secret@postgres/florence2"})
