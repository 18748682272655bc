"""What is said of the distribution is what ``pyproject.toml`` says: its name and extras in messages and docs, its version, its Pythons."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import florence2
from tests.docs.markdown import PAGES, ROOT

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
NAME: str = PROJECT["name"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
# Distributions of others that a page or a message may tell users to install.
OTHERS = frozenset({"inference-sdk", "pip", "supervision", "torch", "torchvision"})

_INSTALL = re.compile(r"\b(?:pipx?3?|uv pip|uv tool|conda|python3? -m pip) install +([^\n`]*)|\buv add +([^\n`]*)")
_EXTRA = re.compile(r"\bextras? [`'\"]([\w-]+)[`'\"]")
_OURS = re.compile(r"florence[-_.]?2(?:[-_.]?engine)?(?=\[)", re.IGNORECASE)


def strings_of(source: Path) -> Iterator[str]:
    """The texts of a module, with ``{name}`` for what is put into them."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                f"{{{ast.unparse(part.value)}}}" if isinstance(part, ast.FormattedValue) else literal(part) for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


def literal(node: ast.expr) -> str:
    return str(ast.literal_eval(node))


def texts() -> Iterator[tuple[str, str]]:
    """All that users read, and where it stands."""
    for page in (*PAGES, ROOT / "src" / "florence2" / "demo" / "README.md", *(ROOT / ".github").rglob("*.yml")):
        yield page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8")
    for source in SOURCES:
        for text in strings_of(source):
            yield source.relative_to(ROOT).as_posix(), text


def words_of(command: str) -> list[str]:
    """The words of a command, which may end in the middle of a sentence."""
    quoted = re.split(r"(?<=['\"])[.,;:)](?=\s|$)|[;|&#]| (?:and|or|to|for|in|on|is|the|brings|installs) ", command)[0]
    try:
        return shlex.split(quoted)
    except ValueError:
        return quoted.replace("'", "").replace('"', "").split()


def faults(text: str) -> Iterator[str]:
    """What is wrong with the install commands and extras that a text names."""
    for found in _INSTALL.finditer(text):
        for word in words_of(found[1] or found[2]):
            yield from fault_of(word.rstrip(".,;:)"))
    for found in _EXTRA.finditer(text):
        if found[1] not in EXTRAS:
            yield f"no extra {found[1]!r}"
    for found in _OURS.finditer(text):
        if found[0] != NAME:
            yield f"{found[0]}[…] is not {NAME}"


def fault_of(word: str) -> Iterator[str]:
    """What is wrong with one word behind ``pip install``."""
    place = re.fullmatch(r"(?:\.|dist/[\w.*-]+\.whl)(?:\[([\w,-]+)\])?", word)
    if word.startswith("-") or "://" in word or not word or word.endswith((".txt", "/")):
        return
    if place is not None:
        extras = set((place[1] or "").split(",")) - {""}
    else:
        try:
            wanted = Requirement(re.sub(r"\{\w+\}", "engine", word.replace("{package}", "supervision")))  # of no extra
        except InvalidRequirement:
            yield f"{word!r} is no requirement"
            return
        if wanted.name in OTHERS:
            return
        if wanted.name != NAME:
            yield f"{wanted.name!r} is not {NAME!r}"
        extras = wanted.extras
    yield from (f"no extra {extra!r}" for extra in sorted(extras - set(EXTRAS)))


def test_every_install_command_names_this_distribution_and_its_extras() -> None:
    assert [f"{place}: {fault}" for place, text in texts() for fault in faults(text)] == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("pip install florence2", ["'florence2' is not 'florence2-engine'"]),
        ("do `pip install 'florence2[engine]'`.", ["'florence2' is not 'florence2-engine'", "florence2[…] is not florence2-engine"]),
        ("pip install florence-2", ["'florence-2' is not 'florence2-engine'"]),
        ("is missing: pip install 'florence2-engine[engin]'", ["no extra 'engin'"]),
        ("`pip install '.[engine,sever]'`", ["no extra 'sever'"]),
        ("the plot needs the extra 'plots'", ["no extra 'plots'"]),
        ("uv add florence2", ["'florence2' is not 'florence2-engine'"]),
        ("python -m pip install -U florence_2_engine", ["'florence_2_engine' is not 'florence2-engine'"]),
        ("needs matplotlib: install florence2[train]", ["florence2[…] is not florence2-engine"]),
        ("pip install 'florence2-engine[engine,server]' torch==2.8.0", []),
        ("pip install --extra-index-url https://example.org/x 'florence2-engine[all]'", []),
    ],
)
def test_what_is_wrong_is_found(text: str, wrong: list[str]) -> None:
    assert list(faults(text)) == wrong


def test_strings_are_found_however_they_are_written(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("raise E(f\"pip install 'florence2[{extra}]'\" + 'pip install ' 'florence2')\n")
    assert set(strings_of(source)) == {"pip install 'florence2[{extra}]'", "pip install florence2"}


def test_what_commands_say_that_they_need_is_an_extra() -> None:
    """The name that is put into a message's ``{extra}`` is that of a command, in a call with one literal."""
    named = {found for source in SOURCES for found in re.findall(r"\brequires\(\"([\w-]+)\", ", source.read_text(encoding="utf-8"))}
    assert named
    assert named <= set(EXTRAS)


def test_extras_of_extras_are_there() -> None:
    required = [Requirement(line) for lines in EXTRAS.values() for line in lines]
    ours = [one for one in required if canonicalize_name(one.name).startswith("florence")]
    assert ours
    assert {one.name for one in ours} == {NAME}
    assert {extra for one in ours for extra in one.extras} <= set(EXTRAS)


def test_no_library_of_ours_is_pinned() -> None:
    """A library that names one version of a package can't be installed beside others."""
    lines = [*PROJECT["dependencies"], *(line for name, lines in EXTRAS.items() if name != "dev" for line in lines)]
    assert [line for line in lines if any(one.operator in {"==", "==="} for one in Requirement(line).specifier)] == []


def test_the_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["dynamic"]
    assert (ROOT / PYPROJECT["tool"]["hatch"]["version"]["path"]).samefile(ROOT / "src" / "florence2" / "version.py")
    held = [source for source in SOURCES if re.search(r"^__version__\b", source.read_text(encoding="utf-8"), re.MULTILINE)]
    assert [source.name for source in held] == ["version.py"]


def test_the_installed_version_is_that_of_the_source() -> None:
    try:
        installed = importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{NAME} runs from its source tree and is not installed")
    assert installed == florence2.__version__


def test_a_source_tree_that_is_not_installed_knows_its_version() -> None:
    script = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); import florence2; print(florence2.__version__)"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == (f"{florence2.__version__}\n", "")


def test_the_citation_is_of_this_version() -> None:
    """What GitHub and Zenodo read; the keys without which format 1.2.0 is not valid."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["version"] == florence2.__version__
    assert cited["license"] == PROJECT["license"]
    assert [author["name"] for author in cited["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert all({"type", "title", "authors"} <= reference.keys() for reference in cited["references"])


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_who_files_an_issue_is_asked_for_the_version_and_the_place(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    assert {"version", "platform"} <= set(ids)
    assert all(field["type"] in {"textarea", "input"} and field["attributes"]["label"] for field in form["body"])
    assert "florence2 --version" in str(form)
    assert "torch" in str(form).lower()


class TestPythons:
    oldest = re.fullmatch(r">=3\.(\d+)", PROJECT["requires-python"])

    def test_the_oldest_is_the_same_everywhere(self) -> None:
        assert self.oldest is not None
        minor = self.oldest[1]
        assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py3{minor}"
        assert PYPROJECT["tool"]["pyright"]["pythonVersion"] == f"3.{minor}"
        assert f"oldest = sys.version_info[:3], (3, {minor})" in (ROOT / "Makefile").read_text(encoding="utf-8")

    def test_the_classifiers_begin_with_it(self) -> None:
        assert self.oldest is not None
        named = [int(found[1]) for line in PROJECT["classifiers"] if (found := re.fullmatch(r".*:: 3\.(\d+)", line))]
        assert named == list(range(int(self.oldest[1]), max(named) + 1))

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
    def test_no_page_names_an_older_one(self, page: Path) -> None:
        if page.name == "CHANGELOG.md" or "decisions" in page.parts:
            return
        named = re.findall(r"\b[Pp]ython ?(3\.\d+)", page.read_text(encoding="utf-8"))
        assert [version for version in named if version not in SpecifierSet(PROJECT["requires-python"])] == []

    @pytest.mark.parametrize(("found", "code"), [((3, 10, 13), 1), ((2, 7, 18), 1), ((3, 11, 0), 0), ((3, 14, 1), 0)])
    def test_make_says_which_python_it_needs(self, found: tuple[int, int, int], code: int) -> None:
        text = re.search(r"define CHECK_PYTHON\n(.*?)\nendef", (ROOT / "Makefile").read_text(encoding="utf-8"), re.DOTALL)
        assert text is not None
        script = (
            text[1].replace("sys.version_info[:3]", repr(found)).replace("$(PYTHON)", "py").replace("$(or $(MAKECMDGOALS),setup)", "run")
        )
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert ran.returncode == code
        told = f"needs Python {PROJECT['requires-python'][2:]} or newer, and py is {'.'.join(map(str, found))}"
        assert (told in ran.stderr) == bool(code)
