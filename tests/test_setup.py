"""``make setup``: the versions it pins are those that ``pyproject.toml`` allows, and the build of torch is the one asked for."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.markdown import ROOT
from tests.environments.__main__ import QUICK, RESULTS, SMOKE, STEPS
from tests.environments.requirements import declared
from tests.test_distribution import EXTRAS, NAME, PROJECT


@pytest.fixture(scope="module")
def torch_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("torch_build", ROOT / ".ci" / "torch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pinned() -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


@pytest.mark.parametrize("line", sorted({line for lines in [PROJECT["dependencies"], *EXTRAS.values()] for line in lines}))
def test_every_requirement_is_pinned_to_a_version_that_it_allows(line: str) -> None:
    wanted = Requirement(line)
    if wanted.name == NAME:
        return
    pins = pinned().get(canonicalize_name(wanted.name), [])
    assert pins, "make constraints"
    for pin in pins:
        (one,) = pin.specifier
        assert one.operator == "=="
        assert wanted.specifier.contains(one.version), f"{pin} is not allowed by {wanted}: make constraints"


def test_a_constraint_names_no_place_and_no_extra() -> None:
    """Pip refuses extras in constraints; a place would be somebody's machine."""
    assert [pin for pins in pinned().values() for pin in pins if pin.extras or pin.url] == []


@pytest.mark.parametrize("line", declared())
def test_every_requirement_says_its_lowest_version(line: str) -> None:
    """The lowest is what ``make environments`` installs; without one it would be a first release of years ago."""
    assert [one.operator for one in Requirement(line).specifier] == [">="]


def test_what_stands_in_the_results_passed() -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["environments"]
    assert {"lowest", "no-compiler", "newest"} <= {row["kind"] for row in rows}
    assert [row["failed"] for row in rows if row["failed"]] == []
    assert all(row["passed"] > 0 for row in rows)


@pytest.mark.parametrize("tests", [SMOKE, STEPS, *QUICK])
def test_what_fresh_environments_run_is_there(tests: str) -> None:
    assert (ROOT / tests).exists()


class TestTorch:
    @pytest.mark.parametrize(
        ("choice", "platform", "installed", "is_reachable", "from_index"),
        [
            ("cpu", "linux", None, True, True),
            ("cpu", "linux", "9.1.0", True, True),  # the build for GPUs is there
            ("cpu", "linux", "9.0.0+cpu", True, True),
            ("cpu", "linux", None, False, False),
            ("cpu", "darwin", None, True, False),
            ("cpu", "win32", None, True, False),
            ("default", "linux", None, True, False),
            ("default", "linux", "9.1.0+cpu", True, False),
        ],
    )
    def test_what_pip_is_told(
        self, torch_build: ModuleType, choice: str, platform: str, installed: str | None, is_reachable: bool, from_index: bool
    ) -> None:
        arguments = torch_build.pip_arguments(choice, platform, "9.1.0", installed, is_reachable)
        assert arguments[-1] == "torch==9.1.0"
        assert (torch_build.CPU_INDEX in arguments) == from_index
        assert ("--no-deps" in arguments) == from_index
        assert ("--force-reinstall" in arguments) == (installed in ("9.1.0", "9.1.0+cpu"))

    @pytest.mark.parametrize(
        ("choice", "platform", "installed", "is_reachable"),
        [
            ("cpu", "linux", "9.1.0+cpu", True),
            ("cpu", "linux", "9.1.0", False),  # nothing better can be had
            ("cpu", "linux", "9.1.0+cpu", False),
            ("cpu", "darwin", "9.1.0", False),
            ("default", "linux", "9.1.0", False),
        ],
    )
    def test_what_is_right_stays(
        self, torch_build: ModuleType, choice: str, platform: str, installed: str | None, is_reachable: bool
    ) -> None:
        assert torch_build.pip_arguments(choice, platform, "9.1.0", installed, is_reachable) is None

    def test_the_version_is_that_of_the_constraints(self, torch_build: ModuleType) -> None:
        (pin,) = pinned()["torch"]
        assert str(pin.specifier) == f"=={torch_build.pinned_version()}"

    def test_another_word_is_refused(self) -> None:
        ran = subprocess.run([sys.executable, ROOT / ".ci" / "torch_build.py", "gpu"], capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (1, "TORCH is cpu or default, not 'gpu'\n")

    @pytest.mark.slow
    def test_an_index_that_does_not_answer_costs_seconds(self, torch_build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch_build, "PROBE_S", 0.5)
        monkeypatch.setattr(torch_build, "_PROBE", "import time; time.sleep(30)")
        assert torch_build.answers() is False
        monkeypatch.setattr(torch_build, "_PROBE", "raise OSError")
        assert torch_build.answers() is False

    @pytest.mark.parametrize("choice", ["cpu", "default"])
    def test_make_passes_it_on(self, choice: str) -> None:
        told = subprocess.run(
            ["make", "--dry-run", "--always-make", "setup", f"TORCH={choice}", "VENV=absent"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"absent/bin/python .ci/torch_build.py {choice}\n" in told.stdout

    def test_make_keeps_what_was_chosen(self, tmp_path) -> None:
        (tmp_path / "torch").write_text("default\n")
        told = subprocess.run(
            ["make", "--dry-run", "--always-make", "setup", f"VENV={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "torch_build.py default\n" in told.stdout

    def test_makefile_and_script_name_one_index(self, torch_build: ModuleType) -> None:
        named = set(re.findall(r"https://[\w./-]*pytorch[\w./-]*", (ROOT / "Makefile").read_text(encoding="utf-8")))
        assert {url.rstrip(",;.") for url in named} == {torch_build.CPU_INDEX}
