"""What the page at ``/`` comes with and how the pages look: its examples, and pictures of the pages for README and docs.

In: the generator of scenes, the demo model, a browser (Chromium, driven by Playwright). Out: the files in the page's ``examples`` but for
``scene.png``, and in ``docs/pictures`` ``playground.webp`` and ``playground_phone.webp``, and of the page of a label run ``view.webp`` and
``view_large.webp``. The pages are the real ones, and so are the answers.
"""

from __future__ import annotations

import dataclasses
import io
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from florence2.labelling import LabelOptions, label
from florence2.scenes.scene import draw_scene
from florence2.scenes.world import WORLD
from florence2.server import Settings, create_app
from florence2.server.label_viewer.app import create_app as viewer_of
from florence2.server.label_viewer.folder import source_of
from florence2.server.label_viewer.run import Run

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
EXAMPLES = ROOT / "src" / "florence2" / "server" / "playground" / "assets" / "examples"
HELD_OUT = 1_000_007  # training never draws from seeds with this number
NUM_LABELLED = 80
# Second number of the seed, shapes, words.
SCENES = {"shapes": (71, 4, 1), "signs": (74, 4, 2), "stars": (77, 4, 1), "words": (66, 2, 2)}
DESKTOP = {"viewport": {"width": 1280, "height": 900}, "device_scale_factor": 1.5, "locale": "en-US", "color_scheme": "light"}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
    "locale": "ko-KR",
    "color_scheme": "dark",
}


def main() -> None:
    """Draw the examples, start the server, look at the page."""
    _write_examples()
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("no Chromium is found, so the pictures of the page stay as they are; on Debian: apt-get install chromium")
    with _serving() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with _page(browser, address, DESKTOP) as page:
            _show_desktop(page)
            _write(page, "playground")
        with _page(browser, address, PHONE) as page:
            _show_phone(page)
            _write(page, "playground_phone")
        browser.close()
    with tempfile.TemporaryDirectory() as folder, chdir(folder), sync_playwright() as playwright:
        _label_scenes()
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with _viewing() as address:
            _show_labels(browser, address)
        browser.close()


def _write_examples() -> None:
    for name, (seed, num_objects, num_words) in SCENES.items():
        options = dataclasses.replace(WORLD, num_objects=(num_objects, num_objects), num_words=(num_words, num_words))
        scene = draw_scene(np.random.default_rng((HELD_OUT, seed)), size=480, options=options)
        scene.image.save(EXAMPLES / f"{name}.webp", quality=92, method=6)


def _label_scenes() -> None:
    """Label scenes in the current folder: objects, words and captions."""
    for number in range(NUM_LABELLED):
        folder = Path("photos", f"day-{number % 3 + 1}")
        folder.mkdir(parents=True, exist_ok=True)
        scene = draw_scene(np.random.default_rng((HELD_OUT, 1000 + number)), size=480, options=WORLD)
        scene.image.save(folder / f"scene-{number:02d}.jpg", quality=92)
    label("photos", "labels", LabelOptions(tasks=["od", "ocr-with-region", "caption"], val_share=0.2))


@contextmanager
def _serving() -> Iterator[str]:
    """The address of a server with the demo model."""
    ready = threading.Event()
    app = create_app(Settings(model=["florence-2-demo"]), on_ready=ready.set)
    with _listening(app) as address:
        if not ready.wait(120):
            raise RuntimeError("the server did not become ready")
        yield address


@contextmanager
def _viewing() -> Iterator[str]:
    """The address of the page of the labelled scenes."""
    with _listening(viewer_of(Run(source_of(Path("labels"))))) as address:
        yield address


@contextmanager
def _listening(app: Any) -> Iterator[str]:
    """The address of an application, which is stopped at the end."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def _page(browser: Browser, address: str, options: dict[str, Any]) -> Iterator[Page]:
    context = browser.new_context(**options, reduced_motion="reduce")
    page = context.new_page()
    page.goto(address)
    expect(page.locator("#picture-name")).to_contain_text("scene.png")
    yield page
    context.close()


def _show_desktop(page: Page) -> None:
    """Objects and words of an example."""
    page.get_by_test_id("example-shapes.webp").click()
    expect(page.locator("#picture-name")).to_contain_text("shapes.webp")
    _run(page, "read", "OCR_WITH_REGION", 1)
    _run(page, "find", "OD", 2)
    page.locator("#language").focus()
    page.evaluate("document.querySelector('.side').scrollTop = 0")


def _show_phone(page: Page) -> None:
    """The objects of the first example."""
    _run(page, "find", "OD", 1)


def _show_labels(browser: Browser, address: str) -> None:
    """The labelled scenes by their lowest score, and one of them large."""
    context = browser.new_context(**DESKTOP, reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{address}/?order=lowest")
    expect(page.locator(".cell.is-waiting")).to_have_count(0)
    expect(page.get_by_test_id("cell").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    _write(page, "view")
    page.get_by_test_id("cell").nth(1).click()
    expect(page.locator(".viewer-object").first).to_be_attached()
    _write(page, "view_large")
    context.close()


def _run(page: Page, group: str, task: str, num_layers: int) -> None:
    page.get_by_test_id(f"group-{group}").click()
    page.get_by_test_id(f"task-{task}").click()
    page.click("#run")
    layers = page.get_by_test_id("layer")
    expect(layers).to_have_count(num_layers)
    expect(layers.first).to_have_attribute("data-state", "done")


def _write(page: Page, name: str) -> None:
    page.mouse.move(2, 2)  # nothing is pointed at
    time.sleep(0.5)  # labels find their places in the next frames
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(FOLDER / f"{name}.webp", quality=88, method=6)


if __name__ == "__main__":
    main()
