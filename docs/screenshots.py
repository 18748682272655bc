"""What the page at ``/`` comes with and how it looks: its examples, and pictures of it for README and docs.

In: the generator of scenes, the demo model, a browser (Chromium, driven by Playwright). Out: the files in the page's ``examples`` but for
``scene.png``, and ``playground.webp`` and ``playground_phone.webp`` in ``docs/pictures``. The page is the real one, and so are the answers.
"""

from __future__ import annotations

import dataclasses
import io
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from florence2.scenes.scene import draw_scene
from florence2.scenes.world import WORLD
from florence2.server import Settings, create_app

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
EXAMPLES = ROOT / "src" / "florence2" / "server" / "playground" / "assets" / "examples"
HELD_OUT = 1_000_007  # training never draws from seeds with this number
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


def _write_examples() -> None:
    for name, (seed, num_objects, num_words) in SCENES.items():
        options = dataclasses.replace(WORLD, num_objects=(num_objects, num_objects), num_words=(num_words, num_words))
        scene = draw_scene(np.random.default_rng((HELD_OUT, seed)), size=480, options=options)
        scene.image.save(EXAMPLES / f"{name}.webp", quality=92, method=6)


@contextmanager
def _serving() -> Iterator[str]:
    """The address of a server with the demo model."""
    listening = socket.create_server(("127.0.0.1", 0))
    ready = threading.Event()
    app = create_app(Settings(model=["florence-2-demo"]), on_ready=ready.set)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        if not ready.wait(120):
            raise RuntimeError("the server did not become ready")
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
