"""The page for everybody: keyboard, screen readers, contrast, both themes, both languages, small screens."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from fixtures.fake_engine import FakeEngine
from tests.playground.conftest import OpenPage
from tests.playground.serving import ServerThread, serving
from tests.playground.tab import choose_task, drawn, finished, layers, run, wait_for_picture

pytestmark = pytest.mark.slow

LOCALES = {"en": "en-US", "ko": "ko-KR"}
HANGUL = re.compile("[가-힣]")


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    with serving(FakeEngine()) as server:
        yield server


def faults(page: Page) -> list[str]:
    """What axe-core finds that is serious or critical."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]} ({node['failureSummary'][:300]})"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_axe_finds_nothing_serious(server: ServerThread, open_page: OpenPage, theme: str, language: str) -> None:
    with open_page(server.url, errors_are_expected=True, locale=LOCALES[language], color_scheme=theme) as page:
        wait_for_picture(page, "scene.png")
        assert faults(page) == []
        run(page, "OD")
        run(page, "CAPTION")
        choose_task(page, "REGION_TO_OCR")
        page.fill("#link", "nonsense")
        page.click("#fetch-link")
        expect(page.get_by_test_id("error")).to_be_visible()
        layers(page).last.get_by_test_id("object").first.click()
        expect(page.locator("#picked")).to_be_visible()
        page.locator("#options summary").click()
        assert faults(page) == []
        page.click("#code-open")
        assert faults(page) == []


def test_axe_finds_nothing_serious_on_a_phone(server: ServerThread, open_page: OpenPage) -> None:
    phone = {"viewport": {"width": 360, "height": 640}, "is_mobile": True, "has_touch": True}
    with open_page(server.url, **phone) as page:
        wait_for_picture(page, "scene.png")
        run(page, "OD")
        assert faults(page) == []


def test_a_page_that_needs_a_key(open_page: OpenPage) -> None:
    with serving(FakeEngine(), api_keys=["KEY1234567890"]) as server, open_page(server.url, errors_are_expected=True) as page:
        wait_for_picture(page, "scene.png")
        page.click("#run")
        expect(page.get_by_test_id("error")).to_be_visible()
        assert faults(page) == []


def test_the_keyboard_alone(server: ServerThread, open_page: OpenPage) -> None:
    with open_page(server.url) as page:
        wait_for_picture(page, "scene.png")
        reached = tab_through(page)
        assert {"model", "language", "theme", "choose", "link", "fetch-link", "run", "code-open"} <= set(reached)
        page.locator("#run").focus()
        page.keyboard.press("Enter")
        finished(page, 1)
        page.locator(".viewer-object").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#picked button").first).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator("#picked")).to_be_hidden()
        expect(page.locator(".viewer-object").first).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        finished(page, 2)
        page.keyboard.press("Control+Enter")
        finished(page, 3)


def tab_through(page: Page) -> list[str]:
    """The ids of what Tab leads to, from the top to where it begins again; each shows that it has the focus."""
    reached: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
                const element = document.activeElement;
                const shown = element.matches("input[type=radio]") ? element.nextElementSibling : element;
                const style = getComputedStyle(shown);
                const isSeen = style.outlineStyle !== "none" || style.boxShadow !== "none";
                return [element.tagName, element.id || element.className || element.value, isSeen];
            }"""
        )
        if found[0] == "BODY":
            break
        assert found[2] or found[0] in ("DIV", "svg", "g"), f"no visible focus on {found}"
        reached.append(str(found[1]))
    return reached


def test_a_region_without_a_mouse(server: ServerThread, open_page: OpenPage) -> None:
    with open_page(server.url) as page:
        wait_for_picture(page, "scene.png")
        choose_task(page, "REGION_TO_CATEGORY")
        page.fill("#x1", "10")
        page.fill("#y1", "20")
        page.fill("#x2", "110")
        page.fill("#y2", "220")
        frame = page.locator(".viewer-region")
        expect(frame).to_have_attribute("aria-label", "Region 10 20 110 220")
        frame.focus()
        page.keyboard.press("ArrowRight")
        assert int(page.locator("#x1").input_value()) > 10
        assert int(page.locator("#x2").input_value()) - int(page.locator("#x1").input_value()) == 100
        page.keyboard.press("Shift+ArrowDown")
        assert int(page.locator("#y2").input_value()) > 220
        run(page)


def test_what_a_screen_reader_says(server: ServerThread, open_page: OpenPage) -> None:
    with open_page(server.url) as page:
        wait_for_picture(page, "scene.png")
        page.evaluate(
            """() => {
                window.said = [];
                const live = document.querySelector("#live");
                const note = () => window.said.push(live.textContent);
                new MutationObserver(note).observe(live, { childList: true, characterData: true, subtree: true });
            }"""
        )
        run(page, "OD")
        run(page, "CAPTION")
        said = [text for text in page.evaluate("window.said") if text]
        assert any("1 object found" in text for text in said)
        assert len(said) <= 6  # not each token
        expect(page.locator("h1")).to_have_count(1)
        assert page.locator(".viewer-object").first.get_attribute("aria-label") == "thing, 50 %, box 0 0 479 479"


def test_languages(server: ServerThread, open_page: OpenPage) -> None:
    with open_page(server.url, locale="ko-KR") as page:
        wait_for_picture(page, "scene.png")
        assert page.locator("html").get_attribute("lang") == "ko"
        assert HANGUL.search(page.locator("#run").inner_text())
        layer = run(page, "OD")
        assert HANGUL.search(layer.get_by_test_id("layer-summary").inner_text())
        page.click("#language")
        assert page.locator("html").get_attribute("lang") == "en"
        expect(layer.get_by_test_id("layer-summary")).to_have_text("1 object found")
        seen = page.locator("header, main").all_inner_texts()
        assert HANGUL.findall("".join(seen).replace("한국어", "")) == []
        page.reload()
        wait_for_picture(page, "scene.png")
        assert page.locator("html").get_attribute("lang") == "en"
    with open_page(server.url, locale="de-DE") as page:
        expect(page.locator("#run")).to_have_text("Run")


def test_themes(server: ServerThread, open_page: OpenPage) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with open_page(server.url, color_scheme="dark") as page:
        wait_for_picture(page, "scene.png")
        dark = page.evaluate(background)
        page.click("#theme")
        light = page.evaluate(background)
        assert sum(map(int, re.findall(r"\d+", light)[:3])) > 500 > 200 > sum(map(int, re.findall(r"\d+", dark)[:3]))
        page.reload()
        wait_for_picture(page, "scene.png")
        assert page.evaluate(background) == light


def test_touch_zooms_with_two_fingers(server: ServerThread, open_page: OpenPage) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    with open_page(server.url, **phone) as page:
        wait_for_picture(page, "scene.png")
        run(page, "OD")
        before = drawn(page).first.bounding_box()
        canvas = page.locator("#viewer canvas").bounding_box()
        assert before is not None
        assert canvas is not None
        x, y = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
        session = page.context.new_cdp_session(page)
        for kind, apart in (("touchStart", 20), ("touchMove", 50), ("touchMove", 90), ("touchEnd", 0)):
            points = [] if kind == "touchEnd" else [{"x": x - apart, "y": y}, {"x": x + apart, "y": y}]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.wait_for_timeout(100)
        after = drawn(page).first.bounding_box()
        assert after is not None
        assert after["width"] > before["width"] * 1.5
