"""Labels: odd texts are texts, and plates are apart; objects that are none do no harm."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.playground.viewer.stage import Stage, patched

pytestmark = pytest.mark.slow


ODD = [
    "<img src=x onerror=alert(1)>",
    "</svg><script>alert(1)</script>",
    "\" onmouseover='alert(1)' x=\"",
    "🐕‍🦺" * 100,
    "كلب بني",
    "a\u202eb\u0000c\nd\te\u200b",
    "word " * 300,
    "w" * 3000,
    "e" + "\u0301" * 2000,
    "\ud800 half",
    "",
    " ",
    "constructor",
    "__proto__",
]


def test_odd_labels_are_text(stage: Stage) -> None:
    boxes = [[20 * index, 15 * index, 20 * index + 120, 15 * index + 90] for index in range(len(ODD))]
    objects = [{"label": label, "box": box, "score": 0.5} for label, box in zip(ODD, boxes, strict=True)]
    script = f"layers => viewer.setLayers([{{ ...layers, objects: JSON.parse({json.dumps(json.dumps(objects))}) }}])"
    stage.show(patched())
    stage.run(script, {"id": "found", "title": ODD[0], "visible": True})
    stage.frame()
    assert stage.page.locator("#viewer script, #viewer img").count() == 0
    for index, label in enumerate(ODD):
        plate = stage.page.locator(".viewer-label").nth(index)
        assert len(plate.text_content() or "") < 700
        assert (plate.bounding_box() or {"width": 999})["width"] <= 260
        if label.strip() and "\ud800" not in label:
            assert plate.get_attribute("title") == label
    assert "\u202e" not in (stage.page.locator(".viewer-label").nth(5).text_content() or "")
    assert stage.page.locator(".viewer-label").nth(4).locator("span").first.evaluate("(span) => getComputedStyle(span).direction") == "rtl"


def test_objects_that_are_none_are_passed_over(stage: Stage) -> None:
    broken: list[Any] = [{}, {"label": None}, {"box": []}, {"box": ["a", "b", "c", "d"]}, {"quad": [1, 2, 3]}, {"polygons": [[], [5, 5]]}]
    stage.show(patched(), [*broken, {"label": "upside down", "box": [200, 150, 100, 50]}, {"label": "point", "box": [10, 10, 10, 10]}])
    stage.run("() => { viewer.highlight('found', 0); viewer.setSelectable(true); viewer.setThreshold(NaN); }")
    assert len(stage.boxes()) == 4
    stage.page.mouse.click(*stage.page.locator(".viewer-surface").evaluate("() => [400, 300]"))
    stage.page.locator(".viewer-object").last.focus()
    stage.page.keyboard.press("Enter")
    assert stage.events("select")[-1] == {"layerId": "found", "index": 7}


def test_labels_of_lines_stand_beside_them(stage: Stage) -> None:
    lines = [[40, 20 + 18 * index, 260, 34 + 18 * index] for index in range(14)]
    stage.show(patched(), [{"label": f"line {index}", "box": box} for index, box in enumerate(lines)])
    boxes, plates = stage.boxes(), stage.rectangles(".viewer-label.is-placed")
    assert len(plates) == 14
    for left, top, right, bottom in plates:
        covered = [min(right, box[2]) - max(left, box[0]) > 1 and min(bottom, box[3]) - max(top, box[1]) > 1 for box in boxes]
        assert sum(covered) <= 1


def test_no_label_moves_when_one_is_pointed_at(stage: Stage) -> None:
    objects = [{"label": f"object {index}", "box": [index * 7, index * 5, index * 7 + 90, index * 5 + 60]} for index in range(40)]
    stage.show(patched(), objects)
    before = stage.labels()
    assert 5 < len(before) < 40
    places = stage.rectangles(".viewer-label.is-placed")
    for label in before[::3]:
        stage.page.locator(".viewer-label.is-placed", has_text=re.compile(f"^{label}$")).hover()
        stage.frame()
        assert stage.rectangles(".viewer-label.is-placed") == places
    hidden = next(index for index in range(40) if f"object {index}" not in before)
    stage.run("(index) => viewer.highlight('found', index)", hidden)
    assert set(stage.labels()) == {*before, f"object {hidden}"}, "one without room is shown while it is pointed at"


def test_labels_are_apart_and_in_view(stage: Stage) -> None:
    objects = [{"label": f"object {index}", "box": [index * 7, index * 5, index * 7 + 90, index * 5 + 60]} for index in range(40)]
    stage.show(patched(), objects)
    for _ in range(3):
        rectangles = stage.rectangles(".viewer-label.is-placed, .viewer-tools")
        assert len(rectangles) > 10
        assert all(left >= 0 and top >= 0 and right < 801 and bottom < 601 for left, top, right, bottom in rectangles)
        for index, (left, top, right, bottom) in enumerate(rectangles):
            for other in rectangles[:index]:
                assert right <= other[0] + 1 or left >= other[2] - 1 or bottom <= other[1] + 1 or top >= other[3] - 1
        stage.run("() => viewer.zoomIn()")
        stage.frame()
