"""Libraries that come with a wheel: the right one is taken, only if it is of these sources, and the wheel's name says where they run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from florence2.model.cpu import building, built_ahead
from florence2.model.cpu.built_ahead import LEVELS, BuildFailed, Level, features_of, fitting_libraries, level_of, platform_tag

CASES = [(machine, level) for machine, levels in LEVELS.items() for level in levels]


def cpuinfo(*features: str, word: str = "flags") -> str:
    return (
        f"processor\t: 0\nmodel name\t: Some\n{word}\t\t: fpu sse2 {' '.join(features)}\nbogomips\t: 1\n\nprocessor\t: 1\n{word}\t\t: fpu\n"
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library for each level, as the build of a wheel writes them."""
    monkeypatch.setattr(built_ahead, "build", lambda _, flags: " ".join(flags).encode())
    monkeypatch.setattr(built_ahead, "find_compiler", lambda machine: "g++")
    for machine in LEVELS:
        built_ahead.build_libraries(machine, tmp_path)
    return tmp_path


@pytest.mark.parametrize(("machine", "level"), CASES, ids=lambda value: value.name if isinstance(value, Level) else value)
@pytest.mark.parametrize("word", ["flags", "Features"])
def test_a_processor_gets_the_library_of_its_level_first(folder: Path, machine: str, level: Level, word: str) -> None:
    first, *older = fitting_libraries(machine, cpuinfo(*level.features, word=word), folder)
    assert first.read_bytes().decode() == " ".join(level.flags)
    assert level_of(first) == level.name
    assert [level_of(path) for path in older] == [one.name for one in LEVELS[machine][LEVELS[machine].index(level) + 1 :]]


def test_a_feature_less_is_a_level_less(folder: Path) -> None:
    newest, oldest = LEVELS["x86_64"][0], LEVELS["x86_64"][-1]
    (path,) = fitting_libraries("x86_64", cpuinfo(*(newest.features - {"avx512vl"})), folder)
    assert level_of(path) == oldest.name
    assert fitting_libraries("x86_64", cpuinfo(*(oldest.features - {"fma"})), folder) == []


@pytest.mark.parametrize("text", ["", "Features\t: half thumb\n", "flags\n"])
def test_other_processors_have_none(folder: Path, text: str) -> None:
    assert fitting_libraries("x86_64", text, folder) == []
    assert fitting_libraries("riscv64", cpuinfo(*LEVELS["x86_64"][0].features), folder) == []


def test_features_end_with_their_line() -> None:
    assert features_of("flags\t\t:\nbogomips\t: 1\n") == frozenset()


@pytest.mark.parametrize("change", ["source", "header", "flag"])
def test_a_library_does_not_outlive_its_sources(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in building.SOURCES:
        (sources / name).write_bytes((building.FOLDER / name).read_bytes())
    for header in building.FOLDER.glob("*.h"):
        (sources / header.name).write_bytes(header.read_bytes())
    monkeypatch.setattr(building, "FOLDER", sources)
    processor = cpuinfo(*LEVELS["x86_64"][0].features)
    assert fitting_libraries("x86_64", processor, folder)
    if change == "flag":
        monkeypatch.setattr(building, "PORTABLE", (*building.PORTABLE, "-O2"))
    else:
        (sources / (building.SOURCES[0] if change == "source" else "new.h")).write_text("// new")
    assert fitting_libraries("x86_64", processor, folder) == []


def test_without_a_compiler_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildFailed, match="no compiler for x86_64"):
        built_ahead.build_libraries("x86_64", tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="no /bin/sh that can stand in for a compiler")
def test_what_the_compiler_says_is_in_the_error(tmp_path: Path) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\necho no such processor >&2\nexit 1\n")
    compiler.chmod(0o700)
    with pytest.raises(BuildFailed, match="no such processor"):
        building.build(str(compiler), ("-march=x",))


@pytest.mark.parametrize(
    ("asks_for", "tag"),
    [
        ([b"GLIBC_2.2.5", b"GLIBCXX_3.4"], "manylinux_2_17_x86_64"),
        ([b"GLIBC_2.17", b"CXXABI_1.3.7", b"GLIBC_2.4"], "manylinux_2_17_x86_64"),
        ([b"GLIBC_2.18"], "manylinux_2_28_x86_64"),
        ([b"CXXABI_1.3.9"], "manylinux_2_28_x86_64"),
        ([b"GLIBC_2.3", b"GLIBC_2.34"], "manylinux_2_34_x86_64"),
    ],
)
def test_a_wheel_names_the_oldest_platform_that_it_runs_on(tmp_path: Path, asks_for: list[bytes], tag: str) -> None:
    paths = [tmp_path / f"{number}.so" for number, _ in enumerate(asks_for)]
    for path, version in zip(paths, asks_for, strict=True):
        path.write_bytes(b"\x7fELF\0memcpy\0" + version + b"\0")
    assert platform_tag(paths, "x86_64") == tag


def test_what_runs_on_no_known_platform_is_no_wheel(tmp_path: Path) -> None:
    path = tmp_path / "new.so"
    path.write_bytes(b"\0GLIBC_2.99\0")
    with pytest.raises(BuildFailed, match="newer than any platform"):
        platform_tag([path], "x86_64")
