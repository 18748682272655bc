"""The cache of compiled routines: what is in it is used only if it is what was put there."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from florence2.errors import InvalidOption
from florence2.model.cpu import building, built_ahead, kernels, library_cache

needs_compiler = pytest.mark.skipif(not shutil.which("g++") or sys.platform != "linux", reason="no g++ on this machine")
pytestmark = needs_compiler
SOON = "-O0"  # compiled in a third of the time: what is tested here is where libraries come from
PREPARE = f"""
from florence2.model.cpu import building, kernels
building.PORTABLE = (*building.PORTABLE, "{SOON}")
kernels.fitting_libraries = lambda *_: []  # a package without libraries, as in the fixture
kernels.prepare()
print(kernels.loaded() is not None)
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache folder of this test alone, and a package without libraries."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernels, "fitting_libraries", lambda *_: [])
    monkeypatch.setattr(building, "PORTABLE", (*building.PORTABLE, SOON))
    return tmp_path / "florence2"


@pytest.fixture(scope="module")
def library() -> bytes:
    """A library, built once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "PORTABLE", (*building.PORTABLE, SOON))
        return building.build("g++", building.NATIVE)


@pytest.fixture
def kept(folder: Path, library: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the cache, where compiling is copying."""
    monkeypatch.setattr(kernels, "build", lambda *_: library)
    kernels._load()
    (path,) = folder.glob("kernels-*.so")
    return path


def test_a_library_is_built_once_and_kept(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "build", lambda *_: pytest.fail("built again"))
    assert kernels._load()[1] == ("cache", str(kept))
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def _other_library(path: Path) -> None:
    """A sound library without our routines, under a name that fits its digest."""
    empty = path.with_name("empty.c")
    empty.write_text("")
    other = path.with_name("other.so")
    subprocess.run(["g++", "-x", "c", "-shared", "-fPIC", "-o", str(other), str(empty)], check=True)
    empty.unlink()
    path.unlink()
    other.replace(path.with_name(f"{path.stem.rpartition('-')[0]}-{building.content_digest(other.read_bytes())}.so"))


def _renamed(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Changed, under a name that fits the new digest."""

    def spoil(path: Path) -> None:
        content = change(path.read_bytes())
        path.unlink()
        path.with_name(f"{path.stem.rpartition('-')[0]}-{building.content_digest(content)}.so").write_bytes(content)

    return spoil


def _linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


SPOILED = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut to its header": lambda path: os.truncate(path, 64),
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
    "text": lambda path: path.write_text("no library"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "huge": lambda path: os.truncate(path, 1 << 33),
    "of others": lambda path: path.chmod(0o666),
    "unreadable": lambda path: path.chmod(0o000),
    "link": _linked,
    "folder": _folder,
    "pipe": _pipe,
    "another library": _other_library,
    "another processor": _renamed(lambda library: library[:18] + b"\xf3\x00" + library[20:]),  # the header says RISC-V
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_what_is_not_what_was_built_is_built_anew(kept: Path, library: bytes, spoil: Callable[[Path], None]) -> None:
    spoil(kept)
    built, _ = kernels._load()
    kernels._check(built)
    if not kept.is_dir():
        assert kept.read_bytes() == library
        assert kept.stat().st_mode & 0o077 == 0
    assert len(list(kept.parent.glob("kernels-*.so"))) == 1


def test_a_library_that_computes_something_else_is_built_anew(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[object] = []

    def check(found: kernels.Kernels) -> None:
        checked.append(found)
        if len(checked) == 1:
            raise library_cache.NotUsable("they compute something else")

    monkeypatch.setattr(kernels, "_check", check)
    kernels._load()
    assert len(checked) == 2
    assert kept.is_file()


def test_a_file_that_changes_under_a_running_process_harms_it_not(kept: Path) -> None:
    """A mapped file that is cut short ends whoever touches it with SIGBUS."""
    loaded, _ = kernels._load()
    os.truncate(kept, 0)
    kernels._check(loaded)


def test_systems_without_code_in_memory_have_the_routines(library: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "not here")

    monkeypatch.setattr(os, "memfd_create", refuse)
    kernels._check(kernels._opened(library))


def test_pythons_built_for_old_systems_have_the_routines(library: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.delattr(os, "MFD_CLOEXEC")
    kernels._check(kernels._opened(library))


def test_a_cache_without_room_is_no_hindrance(folder: Path, library: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernels, "build", lambda *_: library)
    monkeypatch.setattr(library_cache, "keep", full)
    kernels._check(kernels._load()[0])
    assert not list(folder.iterdir())


def test_what_ended_builds_have_left_is_removed_once_it_is_old(folder: Path, kept: Path) -> None:
    old, new = folder / "building-old", folder / "building-new"
    for left in (old, new):
        left.mkdir()
        (left / "kernels.so").write_bytes(b"half")
    os.utime(old, (0, 0))
    kernels._load()
    assert new.is_dir()
    assert not old.exists()


@pytest.mark.slow
def test_processes_that_build_at_once_all_have_the_routines(folder: Path) -> None:
    command = [sys.executable, "-c", PREPARE]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=120)[0].strip() for process in processes] == ["True"] * 3
    assert len(list(folder.iterdir())) == len(list(folder.glob("kernels-*.so"))) >= 1


def test_without_a_cache_they_are_built_for_the_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_cache, "cache_folder", lambda: None)
    built, origin = kernels._load()
    kernels._check(built)
    assert origin.kind == "built"


def test_they_use_the_openmp_that_pytorch_has_loaded(library: bytes) -> None:
    """A library that asked for one by name would bring a second one where PyTorch's has another name."""
    assert b"GOMP_parallel" in library
    assert b"libgomp" not in library


@pytest.fixture
def fresh(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not prepared anything yet."""
    monkeypatch.setattr(kernels, "_kernels", None)
    monkeypatch.setattr(kernels, "_origin", None)


@pytest.mark.parametrize("value", ["", "1"])
def test_they_are_used_unless_they_are_switched_off(fresh: None, library: bytes, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(kernels, "build", lambda *_: library)
    monkeypatch.setenv("FLORENCE2_NATIVE", value)
    kernels.prepare()
    assert kernels.loaded() is not None
    assert kernels.origin().kind == "built"


def test_they_can_be_switched_off(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_load", lambda: pytest.fail("loaded"))
    monkeypatch.setenv("FLORENCE2_NATIVE", "0")
    kernels.prepare()
    assert kernels.loaded() is None
    assert kernels.origin() == ("off", "FLORENCE2_NATIVE=0")


def test_a_switch_that_is_neither_is_an_error(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLORENCE2_NATIVE", "no")
    with pytest.raises(InvalidOption, match=r"FLORENCE2_NATIVE must be 1 .* or 0 .*, got 'no'"):
        kernels.prepare()


class TestFromTheWheel:
    @pytest.fixture
    def shipped(self, folder: Path, library: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        """A library as a wheel has it, which others than the user may own and write to."""
        path = tmp_path / f"kernels-x86-64-v3-0-{building.content_digest(library)}.so"
        path.write_bytes(library)
        path.chmod(0o666)
        paths = [path]
        monkeypatch.setattr(kernels, "fitting_libraries", lambda *_: paths)
        return paths

    def test_no_compiler_is_asked_for(self, shipped: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kernels, "find_compiler", lambda: pytest.fail("looked for a compiler"))
        found, origin = kernels._load()
        kernels._check(found)
        assert origin == ("wheel", "x86-64-v3")

    def test_where_one_is_damaged_the_next_serves(
        self, shipped: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        damaged = tmp_path / "kernels-x86-64-v4-0-0.so"
        damaged.write_bytes(b"half")
        shipped.insert(0, damaged)
        assert kernels._load()[1] == ("wheel", "x86-64-v3")
        assert "its content is not what was built" in caplog.text

    def test_one_that_computes_something_else_is_not_used(self, shipped: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        def wrong(_: object) -> None:
            raise library_cache.NotUsable("they compute something else")

        monkeypatch.setattr(kernels, "_check", wrong)
        monkeypatch.setattr(kernels, "find_compiler", lambda: None)
        with pytest.raises(library_cache.NotUsable, match=r"no g\+\+"):
            kernels._load()
        assert shipped[0].is_file()

    @pytest.mark.slow
    def test_libraries_of_all_levels_are_built_and_the_fitting_one_works(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        machine = platform.machine()
        if machine not in built_ahead.LEVELS:
            pytest.skip("a processor of another kind")
        paths = built_ahead.build_libraries(machine, tmp_path)
        assert [built_ahead.level_of(path) for path in paths] == [level.name for level in built_ahead.LEVELS[machine]]
        contents = [path.read_bytes() for path in paths]
        assert len(set(contents)) == len(contents), "a level that makes no difference"
        fitting = built_ahead.fitting_libraries(machine, kernels._processors(), tmp_path)
        if not fitting:
            pytest.skip("an older processor")
        monkeypatch.setattr(kernels, "fitting_libraries", lambda *_: fitting)
        assert kernels._load()[1].kind == "wheel"
        assert re.fullmatch(rf"manylinux_2_\d+_{machine}", built_ahead.platform_tag(paths, machine))
