"""Names of data sets: which are refused, and what is imported for which."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from florence2.data_sources import check_source, read_source
from florence2.errors import DatasetError
from tests.training.sets import write_jsonl, write_pictures


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("synthetic:x", "COUNT must be a whole number, got 'x'"),
        ("synthetic:0", "at least one scene"),
        ("synthetic:5?colour=red", "no such option: colour"),
        ("synthetic:5?kinds=cube", "cube"),
        ("synthetic:5?tasks=ODD", "tasks are out of"),
        ("synthetic:5?seed=1000000", "seeds under"),
        ("synthetic:5?objects=3-1", "objects"),
        ("synthetic:5?smallest=0.7", "object_size"),
        ("synthetic:5?smallest=tiny", "smallest must be a number, got 'tiny'"),
        ("nowhere.jsonl", "there is no data set"),
    ],
)
def test_names_that_are_no_data_set_are_refused(name, message):
    with pytest.raises(DatasetError, match=message):
        read_source(name)


def test_a_name_may_be_checked_without_reading(tmp_path):
    (tmp_path / "set.jsonl").write_text("no record")
    check_source(str(tmp_path / "set.jsonl"))
    check_source("synthetic:5?seed=3")
    with pytest.raises(DatasetError, match="there is no data set"):
        check_source(str(tmp_path / "other.jsonl"))
    with pytest.raises(DatasetError, match="no such option"):
        check_source("synthetic:5?colour=red")


def imported(code: str) -> set[str]:
    """The modules that are imported in a new process behind this code."""
    done = subprocess.run([sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_reading_files_imports_neither_torch_nor_scenes(tmp_path):
    write_pictures(tmp_path, 1)
    path = write_jsonl(tmp_path / "set.jsonl", [{"image": "0.png", "prompt": "<CAPTION>", "answer": "a cat"}])
    everything = "import importlib, pkgutil, florence2.datasets as room\n"
    everything += "for one in pkgutil.iter_modules(room.__path__): importlib.import_module('florence2.datasets.' + one.name)\n"
    reading = f"from florence2.data_sources import read_source\nassert read_source({str(path)!r}).sound()[0].picture.open()"
    modules = imported(everything + reading)
    assert {"florence2.datasets.coco", "florence2.datasets.jsonl", "florence2.datasets.splits"} <= modules
    assert not modules & {"torch", "florence2.scenes", "florence2.training", "florence2.engine", "florence2.evaluation"}


def test_evaluating_a_file_imports_neither_scenes_nor_training(tmp_path):
    write_pictures(tmp_path, 1)
    path: Path = write_jsonl(tmp_path / "set.jsonl", [{"image": "0.png", "prompt": "<OD>", "answer": "cat<loc_1><loc_2><loc_30><loc_40>"}])
    words = ["evaluate", "--data", str(path), "--beams", "1", "--max-new-tokens", "9"]
    modules = imported(f"from florence2.cli.app import app\napp({words!r}, standalone_mode=False)")
    assert {"torch", "florence2.evaluation", "florence2.datasets"} <= modules
    assert not {name for name in modules if name.startswith(("florence2.scenes", "florence2.training"))}
