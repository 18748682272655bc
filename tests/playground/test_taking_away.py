"""What is taken away from the page: copied texts and programs, downloaded files. And the examples that it comes with."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from ast import literal_eval
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image, ImageChops
from playwright.sync_api import Page, expect

from tests.compatibility import install
from tests.playground.conftest import OpenPage
from tests.playground.tab import answer_of, choose_task, copied, run, wait_for_picture

pytestmark = pytest.mark.slow

SCENE = Path(__file__).parents[2] / "examples" / "scene.png"
EXAMPLES = {
    "scene.png": (["white circle", "yellow star", "purple circle"], ["FISH"]),
    "shapes.webp": (["purple star", "yellow cross", "green heart", "orange diamond"], ["Ball"]),
    "signs.webp": (["blue diamond", "orange diamond", "blue circle", "red cross"], ["BED", "DESK"]),
    "stars.webp": (["red star", "orange triangle", "white circle", "purple moon"], ["Cat"]),
    "words.webp": (["pink heart", "red cross"], ["cake", "Egg"]),
}


def test_the_demo_answers_the_examples_right(demo: str) -> None:
    with httpx2.Client(base_url=demo, timeout=60, trust_env=False) as client:
        config = client.get("/playground/config").json()
        assert [example["name"] for example in config["examples"]] == list(EXAMPLES)
        for example in config["examples"]:
            image = {"type": "base64", "value": base64.b64encode(client.get(example["url"]).content).decode()}
            body = {"model_id": config["default_model"], "prompts": ["<OD>", "<OCR_WITH_REGION>"], "image": image}
            found, read = (next(iter(one.values()))["labels"] for one in client.post("/infer/lmm", json=body).json()["response"])
            objects, words = EXAMPLES[example["name"]]
            assert (sorted(found), sorted(read)) == (sorted(objects), sorted(words)), example["name"]


def test_texts_are_copied(demo: str, open_page: OpenPage) -> None:
    with open_page(demo) as page:
        wait_for_picture(page, "scene.png")
        layer = run(page, "CAPTION")
        layer.get_by_test_id("copy-text").click()
        expect(layer.get_by_test_id("copy-text")).to_have_text("Copied")
        assert copied(page) == layer.get_by_test_id("layer-text").inner_text()
        assert answer_of(layer)["response"]["<CAPTION>"] == layer.get_by_test_id("layer-text").inner_text()


def snippet(page: Page, kind: str) -> str:
    """A program as the dialog copies it."""
    page.get_by_test_id(f"code-{kind}").click()
    page.click("#code-copy")
    expect(page.locator("#code-copy")).to_have_text("Copied")
    text = copied(page)
    assert text == page.locator("#code-text").text_content()
    return text


def printed(command: list[str], folder: Path, **variables: str) -> str:
    names = {name: value for name, value in os.environ.items() if name.upper() not in ("HTTP_PROXY", "ALL_PROXY", "PYTHONPATH")}
    ran = subprocess.run(command, cwd=folder, env={**names, "no_proxy": "*", **variables}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_copied_programs_print_the_answer_on_the_page(demo: str, open_page: OpenPage, tmp_path: Path) -> None:
    shutil.copy(SCENE, tmp_path)
    with open_page(demo) as page:
        wait_for_picture(page, "scene.png")
        answer = answer_of(run(page, "OD"))["response"]
        page.click("#code-open")
        programs = {kind: snippet(page, kind) for kind in ("curl", "python", "openai", "inferenceSdk", "json")}
        body = json.loads(programs["json"])
        assert (body["prompt"], body["scores"]) == ("<OD>", True)
        page.keyboard.press("Escape")
        choose_task(page, "OPEN_VOCABULARY_DETECTION")
        page.fill("#text", "yellow star")
        page.click("#code-open")
        named = snippet(page, "curl")
    path = os.pathsep.join(sys.path)
    commands: dict[str, Any] = {
        "curl": (["bash", "-c", programs["curl"]], {}),
        "named": (["bash", "-c", named], {}),
        "python": ([sys.executable, "-c", programs["python"]], {"PYTHONPATH": path}),
        "openai": ([sys.executable, "-c", programs["openai"]], {"PYTHONPATH": path}),
    }
    with suppress(install.RegistryUnreachable):
        commands["inferenceSdk"] = ([str(install.python()), "-c", programs["inferenceSdk"]], {})
    with ThreadPoolExecutor() as pool:
        futures = {kind: pool.submit(printed, command, tmp_path, **variables) for kind, (command, variables) in commands.items()}
        outputs = {kind: future.result() for kind, future in futures.items()}
    assert json.loads(outputs["curl"])["response"] == answer
    assert json.loads(outputs["named"])["response"]["<OPEN_VOCABULARY_DETECTION>"]["bboxes_labels"] == ["yellow star"]
    assert literal_eval(outputs["python"]) == answer
    assert json.loads(outputs["openai"]) == answer
    if "inferenceSdk" in outputs:
        plain = {name: value for name, value in answer["<OD>"].items() if name != "scores"}
        assert literal_eval(outputs["inferenceSdk"]) == {"<OD>": plain}


def saved(page: Page, button: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.click(button)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_downloads(demo: str, open_page: OpenPage, tmp_path: Path) -> None:
    with open_page(demo) as page:
        wait_for_picture(page, "scene.png")
        answer = answer_of(run(page, "OD"))
        plain = saved(page, "#download-json", tmp_path)
        run(page, "OCR_WITH_REGION")
        drawing, coco = saved(page, "#download-png", tmp_path), saved(page, "#download-coco", tmp_path)
    assert plain.name == "scene.florence2.json"
    assert json.loads(plain.read_text(encoding="utf-8")) == answer
    with Image.open(drawing) as picture, Image.open(SCENE) as scene:
        assert (picture.format, picture.size) == ("PNG", (480, 480))
        assert ImageChops.difference(picture.convert("RGB"), scene.convert("RGB")).getbbox() is not None
    pycocotools = pytest.importorskip("pycocotools.coco")
    with redirect_stdout(io.StringIO()):
        read = pycocotools.COCO(str(coco))
    boxes = {read.cats[one["category_id"]]["name"]: one["bbox"] for one in read.anns.values()}
    assert set(boxes) == {*EXAMPLES["scene.png"][0], "FISH"}
    for label, (x1, y1, x2, y2) in zip(answer["response"]["<OD>"]["labels"], answer["response"]["<OD>"]["bboxes"], strict=True):
        assert boxes[label] == pytest.approx([x1, y1, x2 - x1, y2 - y1])
