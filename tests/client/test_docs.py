"""The page of the client says what the code says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from florence2.client import InferenceConfiguration, LmmOptions, errors
from florence2.client.configuration import OtherModels

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_settings_and_their_defaults() -> None:
    written = {name.strip("`"): default.strip("`") for name, default, _ in rows("Settings")}
    others = OtherModels.__dataclass_fields__
    assert written == {field.name: str(field.default) for field in fields(InferenceConfiguration) if field.name not in others}
    assert [name for name in others if f"`{name}`" not in PAGE] == []


def test_options() -> None:
    assert [name.strip("`") for name, _ in rows("What can be asked")] == list(LmmOptions.__annotations__)


def test_errors_and_their_other_names() -> None:
    written = {}
    for line in PAGE.split("\n## Errors\n")[1].split("\n## ")[0].splitlines():
        if line.startswith("| `"):
            name, others = (re.findall(r"`(\w+)`", cell) for cell in line.split("|")[1:3])
            written[name[0]] = set(others)
    kinds = {name: value for name, value in vars(errors).items() if isinstance(value, type) and name[0] != "_"}
    names = [name for name, value in kinds.items() if issubclass(value, errors.InferenceError)]
    classes = {name: {other for other in names if getattr(errors, other) is getattr(errors, name)} - {name} for name in names}
    assert written == {name: others for name, others in classes.items() if getattr(errors, name).__name__ == name}
