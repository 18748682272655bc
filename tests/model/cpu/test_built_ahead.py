"""Libraries for machines without a compiler: the right one is taken, and only if it is of this source."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from florence2.model.cpu import kernels
from florence2.model.cpu.built_ahead import LEVELS, fitting_library, library_path

SOURCE = b"source and flags"


def processor(*features: str) -> str:
    return (
        f"processor\t: 0\nmodel name\t: Some\nflags\t\t: fpu sse2 {' '.join(features)}\nbogomips\t: 1\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for level in LEVELS:
        library_path(level, SOURCE, tmp_path).write_bytes(level.encode())
    return tmp_path


@pytest.mark.parametrize("level", LEVELS)
def test_a_processor_gets_the_library_of_its_generation(folder: Path, level: str) -> None:
    path = fitting_library(SOURCE, processor(*LEVELS[level]), folder)
    assert path is not None
    assert path.read_bytes().decode() == level


def test_a_feature_less_is_a_generation_less(folder: Path) -> None:
    path = fitting_library(SOURCE, processor(*(LEVELS["x86-64-v4"] - {"avx512vl"})), folder)
    assert path == library_path("x86-64-v3", SOURCE, folder)
    assert fitting_library(SOURCE, processor(*(LEVELS["x86-64-v3"] - {"fma"})), folder) is None


@pytest.mark.parametrize("text", ["", "Features\t: fp asimd\n", "flags\n"])
def test_other_processors_have_none(folder: Path, text: str) -> None:
    assert fitting_library(SOURCE, text, folder) is None


def test_a_library_does_not_outlive_its_source(folder: Path) -> None:
    assert fitting_library(SOURCE + b"!", processor(*LEVELS["x86-64-v4"]), folder) is None


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++") or sys.platform != "linux", reason="no g++ on this machine")
def test_without_a_compiler_what_was_built_ahead_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if fitting_library(SOURCE, kernels._processors(), tmp_path) is None and not LEVELS["x86-64-v3"] <= set(kernels._processors().split()):
        pytest.skip("a processor of another kind")
    paths = kernels.build_ahead(tmp_path)
    assert [path.name.startswith(f"kernels-{level}-") for path, level in zip(paths, LEVELS, strict=True)] == [True] * len(LEVELS)
    monkeypatch.setattr(kernels, "_compiler", lambda: None)
    with pytest.raises(kernels._NotHere, match=r"no g\+\+"):
        kernels._load()
    monkeypatch.setattr(kernels, "fitting_library", lambda source, processor: fitting_library(source, processor, tmp_path))
    kernels._check(kernels._load())
    with pytest.raises(RuntimeError, match="no compiler"):
        kernels.build_ahead(tmp_path)
