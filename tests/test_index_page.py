"""README as a package index shows it: links and pictures lead to the repository, or are not there."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path
from types import ModuleType

import pytest

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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("hatchling", reason="without it a build needs the package registry; make dist and .ci/run build")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


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
