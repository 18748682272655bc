"""What editors and type checkers know of the public names: the programs beside this file, checked by pyright and by mypy.

Each ``assert_type`` in them holds a type to the letter. Each ``type: ignore`` marks a mistake that has to be found: one that is
not needed is an error as well.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import florence2
from florence2.client import Answer, InferenceHTTPClient
from tests.docs.markdown import ROOT

PROGRAMS = sorted(Path(__file__).parent.glob("*_calls.py"))
MYPY = ["mypy", "--python-executable", sys.executable, "--strict", "--warn-unused-ignores", "--follow-imports=silent", "--no-error-summary"]


def checked(command: list[str], programs: list[Path]) -> str:
    """What a type checker says about programs; empty where nothing is wrong."""
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    files = [str(path) for path in programs]
    ran = subprocess.run(
        [sys.executable, "-m", *command, *files], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


@pytest.mark.slow
def test_pyright_knows_each_result():
    assert checked(["pyright"], PROGRAMS) == ""


@pytest.mark.slow
def test_mypy_knows_each_result(tmp_path: Path):
    assert checked([*MYPY, "--cache-dir", str(tmp_path)], PROGRAMS) == ""


@pytest.mark.parametrize("kind", [InferenceHTTPClient, Answer, florence2.Engine, florence2.Result, florence2.Tokenizer])
def test_no_public_method_gives_any(kind: type):
    """Where the result depends on an argument there are overloads, none of which gives Any either."""
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("_"):
            for shape in typing.get_overloads(method) or [method]:
                assert inspect.signature(shape).return_annotation not in ("Any", inspect.Signature.empty), name


@pytest.mark.parametrize("name", ["infer_lmm", "infer_lmm_async", "stream_lmm", "stream_lmm_async"])
def test_overloads_take_what_the_method_takes(name: str):
    """Each has all parameters under the same names, in the same order and kind, so that no call is refused by an editor alone."""
    method = getattr(InferenceHTTPClient, name)
    known = {parameter.name: parameter.kind for parameter in inspect.signature(method).parameters.values()}
    shapes = typing.get_overloads(method)
    assert len(shapes) == (12 if name.startswith("infer") else 5)
    for shape in shapes:
        kinds = {parameter.name: parameter.kind for parameter in inspect.signature(shape).parameters.values()}
        kinds.pop("prompts", None)  # one of the options, on which the result depends
        assert list(kinds.items()) == list(known.items())


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "src" / "florence2" / "py.typed").is_file()
