"""Two workers of pytest-xdist run whole files, and whole folders where these share something; what tests leave behind fails the run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT
from tests.schedule import LONGEST_S, TOGETHER, group_of

NOTES = """
import os
import pytest

@pytest.mark.parametrize("case", range(7), ids=lambda case: f"[{case}]@{case}::{case}")
def test_notes(case):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{os.environ['PYTEST_XDIST_WORKER']} {__file__}\\n")
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One with this project's settings of pytest, two files of tests, and two in a folder whose tests stay together."""
    for name in ("pyproject.toml", "tests/conftest.py", "tests/schedule.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("test_a.py", "test_b.py", "cluster/test_c.py", "cluster/test_d.py"):
        path = tmp_path / "tests" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(NOTES, encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


def run(repository: Path, notes: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "xdist", "-p", "timeout", "--numprocesses", "2"]
    environment = {"NOTES": str(notes), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_each_group_is_run_by_one_worker_and_what_is_left_behind_is_an_error(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    notes = tmp_path_factory.mktemp("notes") / "notes"
    ran = run(repository, notes)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = {tuple(line.split()) for line in notes.read_text(encoding="utf-8").splitlines()}
    workers_of = {group: {worker for worker, path in found if group in path} for group in ("test_a.py", "test_b.py", "tests/cluster")}
    assert len(notes.read_text(encoding="utf-8").splitlines()) == 4 * 7
    assert all(len(workers) == 1 for workers in workers_of.values()), workers_of
    assert len(set.union(*workers_of.values())) == 2
    (repository / "tests" / "test_b.py").write_text("def test_leaves():\n    open('left', 'w').close()\n", encoding="utf-8")
    ran = run(repository, notes)
    assert ran.returncode == 1
    assert "tests left in" in ran.stdout
    assert ": left\n" in ran.stdout
    assert run(repository, notes).returncode == 0, "it was there before"


def test_groups_are_files_and_folders_that_there_are() -> None:
    assert group_of("tests/docs/test_links.py::test_a[tests/cluster/x]") == "tests/docs/test_links.py"
    assert all((ROOT / name).exists() for name in (*TOGETHER, *LONGEST_S))
