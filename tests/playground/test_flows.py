"""A person's ways through the page, in a browser, with the demo model behind it."""

from __future__ import annotations

import base64
import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.playground.conftest import OpenPage
from tests.playground.tab import answer_of, box_of, choose_task, copied, drawn, finished, labels, layers, run, sent_bodies, wait_for_picture
from tests.server.file_host import host_of

pytestmark = pytest.mark.slow

SCENE = Path(__file__).parents[2] / "examples" / "scene.png"
SIZE = (480, 480)
OBJECTS = ["white circle", "yellow star", "purple circle"]
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


def test_from_opening_to_a_drawn_answer_on_a_phone(demo: str, open_page: OpenPage) -> None:
    with open_page(demo, **PHONE) as page:
        wait_for_picture(page, "scene.png")
        page.get_by_test_id("example-words.webp").tap()  # 1
        wait_for_picture(page, "words.webp")
        page.locator("#run").tap()  # 2
        layer = finished(page, 1)
        assert sorted(labels(layer)) == ["pink heart", "red cross"]
        for index in range(2):
            expect(drawn(page).nth(index)).to_be_in_viewport()
        layer.get_by_test_id("object").first.tap()
        bar = page.locator("#picked").bounding_box()
        assert bar is not None
        assert bar["height"] < 60  # one row, or it would hide the object
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("width", "height"), [(320, 700), (360, 700), (768, 700), (1920, 700), (844, 390), (560, 320), (320, 256)])
def test_no_window_scrolls_sideways_or_hides_the_form(demo: str, open_page: OpenPage, width: int, height: int) -> None:
    with open_page(demo, viewport={"width": width, "height": height}) as page:
        wait_for_picture(page, "scene.png")
        page.click("#run")
        finished(page, 1)
        run(page, "DENSE_REGION_CAPTION")  # of low windows the picture and the bar take no more than half
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        buttons = page.locator(".picture-bar > *, .link-form > *").evaluate_all(
            "all => all.map((one) => one.getBoundingClientRect().right)"
        )
        stage = page.locator(".stage").bounding_box()
        assert stage is not None
        assert max(buttons) <= stage["x"] + stage["width"] + 1


def put_in(page: Page, way: str, data: bytes, text: str) -> None:
    """Drop or paste a file or a text anywhere on the page."""
    page.evaluate(
        """([way, data, text]) => {
            const given = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
            if (bytes.length) given.items.add(new File([bytes], "given.jpg", { type: "image/jpeg" }));
            if (text) given.setData("text/plain", text);
            const options = { bubbles: true, cancelable: true, [way === "paste" ? "clipboardData" : "dataTransfer"]: given };
            const target = document.querySelector("#stage");
            if (way === "drop") target.dispatchEvent(new DragEvent("dragover", options));
            target.dispatchEvent(way === "paste" ? new ClipboardEvent(way, options) : new DragEvent(way, options));
        }""",
        [way, base64.b64encode(data).decode(), text],
    )


def turned_jpeg() -> bytes:
    """The scene's left part in a JPEG that lies on its side, and is upright by its EXIF."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    scene = Image.open(SCENE).convert("RGB").crop((0, 0, 400, 480))
    scene.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def test_every_way_in(demo: str, open_page: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "chosen.jpg").write_bytes(turned_jpeg())
    with host_of({"/linked.png": SCENE.read_bytes()}) as host, open_page(demo) as page:
        wait_for_picture(page, "scene.png")
        link = f"{host}/linked.png"
        page.set_input_files("#file", tmp_path / "chosen.jpg")
        wait_for_picture(page, "chosen.jpg, 400 \u00d7 480")
        assert answer_of(run(page, "OD"))["image"] == {"width": 400, "height": 480}
        for way in ("drop", "paste"):
            page.get_by_test_id("example-signs.webp").click()
            wait_for_picture(page, "signs.webp")
            put_in(page, way, turned_jpeg(), "")
            wait_for_picture(page, "given.jpg, 400 \u00d7 480")
            put_in(page, way, b"", link)
            wait_for_picture(page, "linked.png, 480 \u00d7 480")
        page.get_by_test_id("example-shapes.webp").click()
        wait_for_picture(page, "shapes.webp")
        page.fill("#link", link)
        page.press("#link", "Enter")
        wait_for_picture(page, "linked.png")
        assert sorted(labels(run(page))) == sorted(OBJECTS)


def test_a_picture_from_the_real_clipboard(demo: str, open_page: OpenPage) -> None:
    with open_page(demo) as page:
        wait_for_picture(page, "scene.png")
        page.evaluate(
            """async () => {
                const picture = await (await fetch("/playground/assets/examples/scene.png")).blob();
                await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
            }"""
        )
        page.keyboard.press("Control+V")
        wait_for_picture(page, "480 \u00d7 480")
        expect(page.locator("#picture-name")).not_to_contain_text("scene.png")


TASKS: list[tuple[str, dict[str, Any], str | None]] = [
    ("OD", {}, "box"),
    ("DENSE_REGION_CAPTION", {}, "box"),
    ("REGION_PROPOSAL", {}, "box"),
    ("CAPTION_TO_PHRASE_GROUNDING", {"text": "a white circle and a yellow star"}, "box"),
    ("OPEN_VOCABULARY_DETECTION", {"text": "yellow star"}, "box"),
    ("CAPTION", {}, None),
    ("DETAILED_CAPTION", {}, None),
    ("MORE_DETAILED_CAPTION", {}, None),
    ("REGION_TO_DESCRIPTION", {"region": [106, 2, 291, 169]}, None),
    ("REGION_TO_CATEGORY", {"region": [106, 2, 291, 169]}, None),
    ("REFERRING_EXPRESSION_SEGMENTATION", {"text": "the yellow star"}, "polygons"),
    ("REGION_TO_SEGMENTATION", {"region": [106, 2, 291, 169]}, "polygons"),
    ("OCR", {}, None),
    ("OCR_WITH_REGION", {}, "quad"),
    ("REGION_TO_OCR", {"region": [80, 240, 300, 320]}, None),
]


def test_each_task_shows_what_the_server_answers(demo: str, open_page: OpenPage) -> None:
    image = {"type": "base64", "value": base64.b64encode(SCENE.read_bytes()).decode()}
    with open_page(demo) as page, httpx2.Client(base_url=demo, timeout=60, trust_env=False) as client:
        wait_for_picture(page, "scene.png")
        for task, given, shape in TASKS:
            layer = run(page, task, **given)
            body = {"model_id": "florence-2-demo", "prompt": f"<{task}>", "image": image, "scores": True, **given}
            expected = client.post("/infer/lmm", json=body).json()
            assert answer_of(layer)["response"] == expected["response"], task
            value = expected["response"][f"<{task}>"]
            if shape is None:
                assert layer.get_by_test_id("layer-text").inner_text() == value.split("<loc_")[0], task
            else:
                num_objects = layer.get_by_test_id("object-row").count()
                assert num_objects > 0, task
                assert page.locator(f".viewer-layer .viewer-object.is-{shape}:not(.is-hidden)").count() == num_objects, task
            page.click("#remove-all")
            expect(layers(page)).to_have_count(0)


def test_a_region_by_mouse(demo: str, open_page: OpenPage) -> None:
    with open_page(demo) as page:
        wait_for_picture(page, "scene.png")
        choose_task(page, "REGION_TO_CATEGORY")
        corners = [page.locator(f"#{corner}") for corner in ("x1", "y1", "x2", "y2")]
        drag(page, [100, 40, 200, 160])
        drawn_region = [int(corner.input_value()) for corner in corners]
        assert all(abs(one - other) <= 2 for one, other in zip(drawn_region, [100, 40, 200, 160], strict=True))
        drag(page, [150, 100, 170, 80])  # from its middle: it moves
        moved = [int(corner.input_value()) for corner in corners]
        assert all(abs(one - other) <= 3 for one, other in zip(moved, [120, 20, 220, 140], strict=True))
        drag(page, [*moved[2:], 290, 170])  # from its corner: it grows
        grown = [int(corner.input_value()) for corner in corners]
        assert grown[:2] == moved[:2]
        assert all(abs(one - other) <= 3 for one, other in zip(grown[2:], [290, 170], strict=True))
        layer = run(page)
        assert sent_bodies(page)[-1]["region"] == grown
        assert "yellow star" in layer.inner_text()
        page.locator("#region-clear").click()
        assert [corner.input_value() for corner in corners] == [""] * 4


def drag(page: Page, way: list[float]) -> None:
    """From one point of the picture to another, by mouse."""
    from_x, from_y, to_x, to_y = box_of(page, way, SIZE)
    page.mouse.move(from_x, from_y)
    page.mouse.down()
    page.mouse.move((from_x + to_x) / 2, (from_y + to_y) / 2)
    page.mouse.move(to_x, to_y)
    page.mouse.up()


def test_texts_grow_and_nothing_of_them_is_taken_back(demo: str, open_page: OpenPage) -> None:
    with open_page(demo) as page:
        wait_for_picture(page, "scene.png")
        page.evaluate(
            """() => {
                window.texts = [];
                const note = () => window.texts.push(document.querySelector("[data-testid=layer-text]")?.textContent ?? "");
                const options = { childList: true, subtree: true, characterData: true };
                new MutationObserver(note).observe(document.querySelector("#layers"), options);
            }"""
        )
        layer = run(page, "DETAILED_CAPTION")
        texts = page.evaluate("window.texts.filter(Boolean)")
        assert len(set(texts)) > 1  # how many parts a busy machine shows is the clock's affair
        assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
        assert texts[-1] == layer.get_by_test_id("layer-text").inner_text()


def test_one_click_leads_on(demo: str, open_page: OpenPage) -> None:
    with open_page(demo) as page:
        wait_for_picture(page, "scene.png")
        caption = run(page, "CAPTION")
        caption.get_by_test_id("follow-ground").click()
        grounded = finished(page, 2)
        assert grounded.get_attribute("data-tag") == "<CAPTION_TO_PHRASE_GROUNDING>"
        assert sorted(labels(grounded)) == sorted(f"a {name}" for name in OBJECTS)
        page.click("#remove-all")
        run(page, "OD")
        page.mouse.click(*box_of(page, [298, 160, 298, 160], SIZE)[:2])  # the purple circle
        expect(page.locator("#picked")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#picked")).to_be_hidden()
        page.mouse.click(*box_of(page, [310, 190, 310, 190], SIZE)[:2])
        page.locator("#picked").get_by_test_id("follow-REGION_TO_DESCRIPTION").click()
        assert "purple circle" in finished(page, 2).inner_text()
        layers(page).last.get_by_test_id("object-describe").first.click()
        assert "white circle" in finished(page, 3).inner_text()
        layers(page).last.get_by_test_id("object").first.click()
        expect(page.locator("#picked")).to_be_visible()
        layers(page).last.get_by_test_id("layer-remove").click()  # nothing is asked about what is gone
        expect(page.locator("#picked")).to_be_hidden()


def test_layers_scores_and_what_an_answer_took(demo: str, open_page: OpenPage) -> None:
    with open_page(demo) as page:
        wait_for_picture(page, "scene.png")
        run(page, "OD")
        words = run(page, "OCR_WITH_REGION")
        assert "picture from cache" in words.get_by_test_id("layer-stats").inner_text()
        assert "tokens" in words.get_by_test_id("layer-stats").inner_text()
        assert drawn(page).count() == 4
        words.get_by_test_id("layer-toggle").click()
        expect(drawn(page)).to_have_count(3)
        expect(words.get_by_test_id("layer-toggle")).to_have_attribute("aria-pressed", "false")
        page.locator("#threshold").fill("100")
        expect(drawn(page)).not_to_have_count(3)
        expect(layers(page).last.get_by_test_id("layer-summary")).to_contain_text("below the minimum score")
        page.locator("#threshold").fill("0")
        layers(page).last.get_by_test_id("layer-remove").click()
        expect(layers(page)).to_have_count(1)
        expect(drawn(page)).to_have_count(0)


def test_pointing_at_one_shows_the_other(demo: str, open_page: OpenPage) -> None:
    with open_page(demo) as page:
        wait_for_picture(page, "scene.png")
        layer = run(page, "OD")
        star = labels(layer).index("yellow star")
        layer.get_by_test_id("object-row").nth(star).hover()
        expect(drawn(page).nth(star)).to_have_class("viewer-object is-box is-highlighted")
        page.mouse.move(*box_of(page, [298, 160, 0, 0], SIZE)[:2])
        circle = layer.get_by_test_id("object-row").nth(labels(layer).index("purple circle"))
        expect(circle).to_have_class("object-row is-highlighted")
        page.mouse.move(2, 2)
        expect(layer.locator(".is-highlighted")).to_have_count(0)


def test_zoom_is_crisp_and_keeps_the_boxes_in_place(demo: str, open_page: OpenPage) -> None:
    with open_page(demo) as page:
        wait_for_picture(page, "scene.png")
        run(page, "OD")
        width = page.locator(".viewer-line").first.evaluate("line => getComputedStyle(line).vectorEffect")
        assert width == "non-scaling-stroke"
        x, y = box_of(page, [298, 160, 0, 0], SIZE)[:2]
        before = drawn(page).nth(2).bounding_box()
        page.mouse.move(x, y)
        page.mouse.wheel(0, -400)
        page.wait_for_timeout(100)
        after = drawn(page).nth(2).bounding_box()
        assert before is not None
        assert after is not None
        assert after["width"] > before["width"] * 1.3
        page.get_by_role("button", name="Show the whole picture").click()
        page.wait_for_timeout(100)
        again = drawn(page).nth(2).bounding_box()
        assert again is not None
        assert abs(again["width"] - before["width"]) < 1


def test_the_session_keeps_pictures_with_their_answers(demo: str, open_page: OpenPage) -> None:
    with open_page(demo) as page:
        wait_for_picture(page, "scene.png")
        run(page, "OD")
        page.get_by_test_id("example-words.webp").click()
        wait_for_picture(page, "words.webp")
        expect(layers(page)).to_have_count(0)
        assert run(page, "OCR").get_by_test_id("layer-text").inner_text()
        page.get_by_test_id("history-item").last.click()
        expect(layers(page).locator(".object-label")).to_have_text(OBJECTS)  # of the picture before, there was one layer, too
        expect(layers(page)).to_have_count(1)
        expect(drawn(page)).to_have_count(3)


def test_several_names_are_one_request(demo: str, open_page: OpenPage) -> None:
    with open_page(demo) as page:
        wait_for_picture(page, "scene.png")
        layer = run(page, "OPEN_VOCABULARY_DETECTION", text="yellow star, purple circle")
        (body,) = sent_bodies(page)
        assert len(body["prompts"]) == 2
        assert sorted(labels(layer)) == ["purple circle", "yellow star"]
        layer.get_by_test_id("copy-json").click()
        assert "yellow star" in copied(page)


def test_a_task_without_its_text_or_region_says_what_is_missing(demo: str, open_page: OpenPage) -> None:
    with open_page(demo) as page:
        wait_for_picture(page, "scene.png")
        choose_task(page, "OPEN_VOCABULARY_DETECTION")
        page.click("#run")
        expect(page.locator("#ask-problem")).not_to_be_empty()
        expect(page.locator("#text")).to_be_focused()
        choose_task(page, "REGION_TO_OCR")
        page.click("#run")
        expect(page.locator("#ask-problem")).not_to_be_empty()
        choose_task(page, "OD")
        expect(page.locator("#ask-problem")).to_be_empty()
        expect(page.locator("#text")).to_be_hidden()
        expect(page.locator("#x1")).to_be_hidden()
