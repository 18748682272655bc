"""Blocks about how the package is built: its modules, who imports whom, the decisions.

In: docstrings, .importlinter and the pages of decisions, read as text. Out: Markdown.
"""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator
from pathlib import Path

from docs.wording import first_sentence

ROOT = Path(__file__).resolve().parents[1]
TREE_COLUMN = 30  # where the jobs of the modules begin
PACKAGE = ROOT / "src" / "florence2"


def rooms() -> str:
    """The tree of the package, with the first sentence of each module."""
    return "\n".join(["```", "src/florence2/", *_listed(PACKAGE, "  "), "```"])


def _listed(folder: Path, indent: str) -> Iterator[str]:
    """The modules of a package, then the packages in it."""
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"{indent}{path.name:<{TREE_COLUMN - len(indent) - 1}} {_job(path)}"
    for package in sorted(folder.glob("*/__init__.py")):
        yield f"{indent}{package.parent.name + '/':<{TREE_COLUMN - len(indent) - 1}} {_job(package)}"
        yield from _listed(package.parent, indent + "  ")


def _job(path: Path) -> str:
    return first_sentence(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").replace("``", "")


def imports() -> str:
    """Who may import whom, as import-linter checks it."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter", encoding="utf-8")
    parts = []
    for name in contracts.sections():
        contract = contracts[name]
        if contract.get("type") == "layers":
            layers = contract["layers"].replace("florence2.", "").strip()
            parts.append(f"**{contract['name']}.** Each line may import those below it, and none on its own line.\n\n```\n{layers}\n```")
        elif contract.get("type") == "forbidden":
            sources, forbidden = (_names(contract[key]) for key in ("source_modules", "forbidden_modules"))
            parts.append(f"**{contract['name']}.** Not imported in {sources}, directly or through other modules: {forbidden}.")
    return "\n\n".join(parts)


def _names(listed: str) -> str:
    return ", ".join(f"`{name.removeprefix('florence2.')}`" for name in listed.split())


def decisions() -> str:
    """The decisions, by number."""
    lines = []
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"* [{title}]({path.name})")
    return "\n".join(lines)
