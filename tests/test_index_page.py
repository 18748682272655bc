"""README as a package index shows it: links and pictures lead to the repository, or are not there."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path
from types import ModuleType

import pytest

from florence2.model.cpu.building import find_compiler
from florence2.model.cpu.built_ahead import LEVELS, level_of
from tests.docs.markdown import ROOT

REPOSITORY = "https://example.org/them/florence2"


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    pytest.importorskip("hatchling", reason="the hook is run by hatchling, which the build brings")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "published", "alone"),
    [
        ("[a](docs/a.md#b)", f"[a]({REPOSITORY}/blob/v1/docs/a.md#b)", "a"),
        ("![a](docs/a.png)", f"![a]({REPOSITORY}/raw/v1/docs/a.png)", ""),
        ("[a](https://x.org/y)", "[a](https://x.org/y)", "[a](https://x.org/y)"),
        ("![a](https://x.org/y.png)", "![a](https://x.org/y.png)", "![a](https://x.org/y.png)"),
        ("[a](#below)", "[a](#below)", "[a](#below)"),
        ("[`a[1]`](x.py)", f"[`a[1]`]({REPOSITORY}/blob/v1/x.py)", "`a[1]`"),
        ("pip install 'a[b]' (c)", "pip install 'a[b]' (c)", "pip install 'a[b]' (c)"),
        ('<img src="docs/a.svg" width="9">', f'<img src="{REPOSITORY}/raw/v1/docs/a.svg" width="9">', ""),
    ],
)
def test_links(hook: ModuleType, text: str, published: str, alone: str) -> None:
    assert hook.for_index(text, REPOSITORY, "v1") == published
    assert hook.for_index(text, "", "v1") == alone


@pytest.mark.parametrize("repository", [REPOSITORY, ""])
def test_no_relative_link_is_left_of_the_readme(hook: ModuleType, repository: str) -> None:
    shown = hook.for_index((ROOT / "README.md").read_text(encoding="utf-8"), repository, "v1")
    targets = re.findall(r"\]\(([^)\s]+)\)|<(?:img|source)[^>]*src(?:set)?=\"([^\"]+)", shown)
    assert [target for pair in targets for target in pair if target and not target.startswith(("https://", "http://", "#"))] == []


def built(folder: Path, native: str) -> Path:
    """A wheel, built with that value of ``FLORENCE2_NATIVE_BUILD``."""
    pytest.importorskip("hatchling", reason="without it a build needs the package registry; make dist and .ci/run build")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "FLORENCE2_NATIVE_BUILD": native}, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel for every system."""
    path = built(tmp_path_factory.mktemp("wheel"), "0")
    assert path.stem.endswith("-py3-none-any")
    return zipfile.ZipFile(path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or find_compiler() is None, reason="no g++ on this machine")
def test_a_wheel_with_routines_is_for_its_platform_and_has_those_of_each_level(tmp_path: Path) -> None:
    machine = platform.machine()
    path = built(tmp_path, "1")
    assert re.search(rf"-py3-none-manylinux_2_\d+_{machine}$", path.stem)
    with zipfile.ZipFile(path) as file:
        libraries = [Path(name) for name in file.namelist() if name.endswith(".so")]
        assert {name.parent.as_posix() for name in libraries} == {"florence2/model/cpu"}
        assert {level_of(name) for name in libraries} == {level.name for level in LEVELS[machine]}
        assert all(file.read(name.as_posix()).startswith(b"\x7fELF") for name in libraries)
        (about,) = (name for name in file.namelist() if name.endswith(".dist-info/WHEEL"))
        assert "Root-Is-Purelib: false" in file.read(about).decode()


@pytest.mark.parametrize("value", ["no", "sparc"])
def test_a_wheel_for_an_unknown_machine_is_not_built(tmp_path: Path, value: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        built(tmp_path, value)
    assert f"FLORENCE2_NATIVE_BUILD must be 0, 1 or one of x86_64, aarch64, got '{value}'" in failed.value.stderr.decode()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="wheels have routines for Linux alone")
def test_without_a_compiler_the_wheel_is_for_every_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert built(tmp_path, "").stem.endswith("-py3-none-any")


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"florence2", "florence2_engine"}
    assert [name for name in names if name.endswith((".jsonl", ".log", ".pyc", ".so"))] == []
    assert {"florence2/py.typed", "florence2/demo/model.safetensors", "florence2/model/cpu/kernels.cpp"} <= set(names)
    pages = {"playground": ("index.html", "app.js", "examples/scene.png"), "label_viewer": ("index.html", "app.js"), "web": ("viewer.js",)}
    assert {f"florence2/server/{page}/assets/{name}" for page in pages for name in pages[page]} <= set(names)
    licences = {name.rpartition("/")[2] for name in names if "/licenses/" in name}
    assert licences == {path.name for path in (*ROOT.glob("LICENSE*"), *(ROOT / "src").rglob("LICENSE*"))}


def test_its_metadata(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_bytes(wheel.read(name))
    assert metadata["Name"] == "florence2-engine"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Author"] == "The florence2 developers"
    assert Path(ROOT / "README.md").read_text(encoding="utf-8").splitlines()[0] in str(metadata.get_payload())
