"""What pages point at is there: files, headings, commands of make, public names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import florence2
from florence2.engine.engine import Engine
from tests.docs.markdown import PAGES, ROOT, anchors, links

PICTURES = ROOT / "docs" / "pictures"
HAS_DEMO = (ROOT / "src" / "florence2" / "demo" / "config.json").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path):
    for target in links(page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        # The pictures are made by the demo model, so they can only be asked for once it is there.
        if file.parent == PICTURES and not HAS_DEMO:
            continue
        assert file.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), f"{target}: no such heading"


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md" or not page.is_file():
            continue
        reached.add(page)
        waiting += [
            (page.parent / target.partition("#")[0]).resolve() for target in links(page.read_text(encoding="utf-8")) if target[0] != "#"
        ]
    assert [page.relative_to(ROOT).as_posix() for page in PAGES if page not in reached and page.is_relative_to(ROOT / "docs")] == []


def test_commands_of_make_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:`|^|=\S+ )make (\w+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(named) <= targets, page


def test_every_public_name_is_documented():
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    names = [*florence2.__all__, *(name for name in vars(Engine) if not name.startswith("_"))]
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


def test_every_variable_of_the_hub_is_documented():
    source = (ROOT / "src" / "florence2" / "weights" / "hub.py").read_text(encoding="utf-8")
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert [name for name in set(re.findall(r'environ\.get\("(\w+)"', source)) if name not in text] == []


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_that_a_page_names_are_there(page: str) -> None:
    named = re.findall(r"`([a-z_]+(?:/[a-z_0-9]+)*\.(?:py|cpp))`", (ROOT / page).read_text(encoding="utf-8"))
    assert named
    assert [name for name in named if not (ROOT / name).exists() and not (ROOT / "src" / "florence2" / name).exists()] == []
