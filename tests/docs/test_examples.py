"""The Python blocks of the pages run as they stand.

They run in a folder with ``examples/scene.png`` and ``my-adapter``. The demo model is the real one where the package holds it;
all others, which would have to be downloaded, are a tiny random checkpoint.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fixtures.checkpoints import TINY, write_checkpoint, write_json
from florence2.labelling.parts import parts_in
from florence2.weights import ALIASES, Alias, hub
from tests.docs.markdown import PAGES, ROOT, fences
from tests.labelling.journals import answer, boxes, record

SCENE = ROOT / "examples" / "scene.png"
DEMO = "florence-2-demo"
HAS_DEMO = (ROOT / "src" / "florence2" / "demo" / "config.json").is_file()


def pages_with(language: str) -> list:
    elsewhere = {"fine-tune.md", "README.ko.md"}  # in small, in test_fine_tune.py; held equal to README.md by test_readme_ko.py
    others = [page for page in PAGES if page.name not in elsewhere]
    chosen = [page for page in others if any(fence.language == language for fence in fences(page.read_text(encoding="utf-8")))]
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in chosen]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("stand-in"), generation={"max_new_tokens": 8})


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder that the blocks run in, and a hub that has one checkpoint."""
    (tmp_path / "examples").mkdir()
    if SCENE.is_file():
        shutil.copy(SCENE, tmp_path / "examples")
    else:
        Image.linear_gradient("L").resize((320, 240)).convert("RGB").save(tmp_path / "examples" / "scene.png")
    write_adapter(tmp_path / "my-adapter")
    write_parts(tmp_path / "big-run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "fetch", lambda repository, revision=None: stand_in)
    if not HAS_DEMO:
        monkeypatch.setitem(ALIASES, DEMO, Alias(DEMO, "stand-in/demo", "", ""))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_adapter(folder: Path) -> None:
    folder.mkdir()
    write_json(folder / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "florence-2-base", "lora_alpha": 4})
    module, width = "base_model.model.model.language_model.encoder.layers.0.self_attn.q_proj", TINY.text.d_model
    factors = {f"{module}.lora_A.weight": torch.ones(2, width), f"{module}.lora_B.weight": torch.ones(width, 2)}
    save_file(factors, folder / "adapter_model.safetensors")


def write_parts(folder: Path) -> None:
    """A labelling run that many workers have written: two pictures, and one that is none."""
    parts = parts_in(folder)
    parts.begin({"tasks": ["<OD>", "<CAPTION>"]}, DEMO)
    found = {"photos/1.jpg": ["forklift", "pallet"], "photos/2.jpg": ["person"]}
    for name, labels in found.items():
        objects = boxes(*((label, (10, 20, 90, 60), 0.8) for label in labels))
        parts.write([record(name, answer("<OD>", objects), answer("<CAPTION>", "a warehouse"), num_bytes=9)])
    parts.write([{"id": "photos/3.jpg", "error": {"code": "invalid_image", "message": "it is no picture"}}])


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("python"))
@pytest.mark.filterwarnings("ignore:OpenCV")
def test_python_blocks_run(page: Path):
    """The blocks of a page share their names, as for someone who reads on; a ``text`` block right behind one is its output."""
    names: dict[str, object] = {"__name__": "page"}
    printed = ""
    blocks = fences(page.read_text(encoding="utf-8"))
    for before, block in zip([None, *blocks], blocks, strict=False):
        if block.language == "python":
            source = "\n" * (block.line - 1) + block.content  # so that an error names the page's line
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile(source, str(page), "exec"), names)
            printed = output.getvalue()
        elif block.language == "text" and block.follows_directly and before is not None and before.language == "python":
            assert printed == block.content, f"{page}, line {block.line}"
