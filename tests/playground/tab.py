"""What a person does on the page, in words of the tests."""

from __future__ import annotations

import json
import re
from typing import Any

from playwright.sync_api import Locator, Page, expect

GROUPS = {
    "find": ("OD", "DENSE_REGION_CAPTION", "REGION_PROPOSAL", "CAPTION_TO_PHRASE_GROUNDING", "OPEN_VOCABULARY_DETECTION"),
    "describe": ("CAPTION", "DETAILED_CAPTION", "MORE_DETAILED_CAPTION", "REGION_TO_DESCRIPTION", "REGION_TO_CATEGORY"),
    "outline": ("REFERRING_EXPRESSION_SEGMENTATION", "REGION_TO_SEGMENTATION"),
    "read": ("OCR", "OCR_WITH_REGION", "REGION_TO_OCR"),
    "own": ("own",),
}


def wait_for_picture(page: Page, name: str) -> None:
    """Wait until the picture is opened and said to be."""
    expect(page.locator("#picture-name")).to_contain_text(name)


def choose_task(page: Page, task: str) -> None:
    group = next(group for group, tasks in GROUPS.items() if task in tasks)
    page.get_by_test_id(f"group-{group}").click()
    if len(GROUPS[group]) > 1:
        page.get_by_test_id(f"task-{task}").click()


def run(page: Page, task: str | None = None, *, text: str | None = None, region: list[int] | None = None) -> Locator:
    """Ask, and wait for the answer; its layer."""
    if task is not None:
        choose_task(page, task)
    if text is not None:
        page.fill("#text", text)
    for corner, value in zip(("x1", "y1", "x2", "y2"), region or (), strict=False):
        page.fill(f"#{corner}", str(value))
    before = layers(page).count()
    page.click("#run")
    return finished(page, before + 1)


def finished(page: Page, count: int) -> Locator:
    """The newest layer, once there are so many and it is whole."""
    expect(layers(page)).to_have_count(count)
    newest = layers(page).first
    expect(newest).to_have_attribute("data-state", "done")
    return newest


def layers(page: Page) -> Locator:
    return page.get_by_test_id("layer")


def labels(layer: Locator) -> list[str]:
    return layer.locator(".object-label").all_inner_texts()


def drawn(page: Page) -> Locator:
    """The objects over the picture that are seen."""
    return page.locator(".viewer-object:not(.is-hidden)")


def answer_of(layer: Locator) -> Any:
    """The server's answer, as the layer's button copies it."""
    layer.get_by_test_id("copy-json").click()
    return json.loads(copied(layer.page))


def sent_bodies(page: Page) -> list[dict[str, Any]]:
    """The JSON bodies that the page has sent so far."""
    return [json.loads(body) for body in page.evaluate("window.bodies")]


def copied(page: Page) -> str:
    return page.evaluate("navigator.clipboard.readText()")


def box_of(page: Page, region: list[float], size: tuple[int, int]) -> list[float]:
    """A region of the picture in pixels of the window, while the whole picture is seen."""
    surface = page.locator("#viewer canvas").bounding_box()
    assert surface is not None
    scale = scale_of(page)
    left = surface["x"] + (surface["width"] - size[0] * scale) / 2
    top = surface["y"] + (surface["height"] - size[1] * scale) / 2
    return [left + region[0] * scale, top + region[1] * scale, left + region[2] * scale, top + region[3] * scale]


def scale_of(page: Page) -> float:
    """How large the picture is shown, by what its objects' layer is scaled with."""
    transform = page.locator(".viewer-objects").first.get_attribute("transform") or ""
    found = re.search(r"scale\(([\d.]+)\)", transform)
    assert found, transform
    return float(found.group(1))
