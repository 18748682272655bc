"""The page of labels as an annotator uses it: filters, orders, the large view, keys, and what may come in the way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from fixtures.labelled_scenes import labelled_scenes
from florence2.datasets.labelled import LabelledObject, LabelledPicture
from florence2.server.label_viewer.index import Problem
from tests.label_viewer.conftest import viewing
from tests.playground.conftest import OpenPage
from tests.playground.test_accessibility import faults

pytestmark = pytest.mark.slow

NUM_PICTURES = 2000
EVIL = "<img src=x onerror=\"document.title='broken in'\">"
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 640}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledPicture]:
    return labelled_scenes(tmp_path_factory.mktemp("scenes"), NUM_PICTURES)


@pytest.fixture(scope="module")
def address(pictures: list[LabelledPicture]) -> Iterator[str]:
    with viewing(pictures, [Problem("torn.jpg", "/photos/torn.jpg", None, "the image is damaged")]) as address:
        yield address


def cells(page: Page) -> Locator:
    return page.get_by_test_id("cell")


def names(page: Page) -> list[str]:
    """The names of the pictures in sight, in their order."""
    expect(cells(page).first).to_be_visible()
    expect(page.locator(".cell.is-waiting")).to_have_count(0)
    script = "items => items.sort((a, b) => a.dataset.position - b.dataset.position).map(one => one.querySelector('.name').innerText)"
    return page.locator("#grid li").evaluate_all(script)


def test_filters_orders_and_an_address_that_keeps_them(address: str, open_page: OpenPage, pictures: list[LabelledPicture]) -> None:
    with open_page(address) as page:
        expect(page.get_by_test_id("count")).to_have_text("2,001 pictures")
        page.get_by_label("heart").check()
        num_hearts = sum(any(found.label == "heart" for found in one.objects) for one in pictures)
        expect(page.get_by_test_id("count")).to_have_text(f"{num_hearts} of 2,001 pictures")
        page.get_by_test_id("order").select_option("lowest")
        page.get_by_test_id("max").fill("60")
        page.get_by_test_id("split").select_option("val")
        chosen = {
            one.name: min(found.score or 0 for found in one.objects if found.label == "heart" and (found.score or 0) <= 0.6)
            for one in pictures
            if one.split == "val" and any(found.label == "heart" and (found.score or 0) <= 0.6 for found in one.objects)
        }
        expect(page.get_by_test_id("count")).to_have_text(f"{len(chosen)} of 2,001 pictures")
        expected = sorted(chosen, key=lambda name: chosen[name])
        shown = names(page)
        assert shown == expected[: len(shown)]
        assert page.url.endswith("?class=heart&max_score=0.6&split=val&order=lowest")
        page.reload()
        expect(page.get_by_test_id("count")).to_have_text(f"{len(chosen)} of 2,001 pictures")
        assert names(page) == shown
        expect(page.get_by_label("heart")).to_be_checked()
        page.get_by_test_id("text").fill("no such words")
        expect(page.get_by_test_id("count")).to_have_text("No picture is left by these filters.")
        page.get_by_test_id("reset").click()
        expect(page.get_by_test_id("count")).to_have_text("2,001 pictures")
        page.get_by_test_id("shown").select_option("problems")
        expect(cells(page)).to_have_count(1)
        expect(cells(page)).to_contain_text("the image is damaged")


def test_thousands_of_pictures_are_scrolled_with_few_elements(address: str, open_page: OpenPage, pictures: list[LabelledPicture]) -> None:
    with open_page(address) as page:
        expect(cells(page).first).to_be_visible()
        cells(page).first.focus()
        page.keyboard.press("End")
        expect(page.locator(":focus")).to_contain_text("torn.jpg")
        page.keyboard.press("ArrowLeft")
        expect(page.locator(":focus")).to_contain_text(Path(pictures[-1].name).name)
        assert page.locator("#grid li").count() < 60
        began = time.monotonic()
        for part in range(10):
            page.evaluate("part => window.scrollTo(0, document.body.scrollHeight * part / 10)", part)
        expect(page.locator("#grid img").first).to_be_visible()
        names(page)
        assert time.monotonic() - began < 10
        page.keyboard.press("Home")
        expect(page.locator(":focus")).to_contain_text("scene-00000")


def test_the_large_view_by_keys_alone(address: str, open_page: OpenPage, pictures: list[LabelledPicture]) -> None:
    with open_page(address, path="/?order=lowest&class=heart") as page:
        first, second = names(page)[:2]
        cells(page).first.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("large-name")).to_have_text(first)
        outlines = page.locator(".viewer-object:not(.is-hidden)")
        picture = next(one for one in pictures if one.name == first)
        num_hearts = sum(found.label == "heart" for found in picture.objects)
        expect(outlines).to_have_count(num_hearts)
        expect(page.get_by_test_id("object")).to_have_count(num_hearts)
        page.get_by_test_id("every").check()
        expect(outlines).to_have_count(len(picture.objects))
        page.keyboard.press("h")
        expect(outlines).to_have_count(0)
        page.keyboard.press("h")
        page.keyboard.press("ArrowRight")
        expect(page.get_by_test_id("large-name")).to_have_text(second)
        assert "picture=" in page.url
        page.keyboard.press("+")
        expect(page.locator(".viewer-surface")).to_have_class("viewer-surface is-zoomed")
        page.keyboard.press("0")
        page.keyboard.press("p")
        expect(page.get_by_test_id("large-name")).to_have_text(first)
        expect(page.get_by_test_id("before")).to_be_disabled()
        page.keyboard.press("n")
        expect(page.get_by_test_id("large-name")).to_have_text(second)
        deep_link = page.url
        page.keyboard.press("Escape")
        expect(page.get_by_test_id("large")).to_be_hidden()
        expect(page.locator(":focus")).to_contain_text(Path(second).name)
        assert "picture=" not in page.url
        page.goto(deep_link)
        expect(page.get_by_test_id("large-name")).to_have_text(second)
        page.get_by_test_id("close").click()
        cells(page).first.click()
        expect(page.get_by_test_id("large-name")).to_have_text(first)
        page.go_back()
        expect(page.get_by_test_id("large")).to_be_hidden()


def test_labels_names_and_captions_are_text(open_page: OpenPage, pictures: list[LabelledPicture]) -> None:
    objects = (LabelledObject(EVIL, (10, 10, 90, 90), score=0.5), LabelledObject("text", (5, 5, 50, 50), text=f"{EVIL}\u202e"))
    evil = replace(pictures[0], name=f"{EVIL}.png", where=EVIL, objects=objects, texts={EVIL: EVIL})
    problem = Problem(f"{EVIL}.jpg", EVIL, None, EVIL)
    with viewing([evil], [problem], [EVIL, "text"]) as address, open_page(address) as page:
        expect(page.get_by_test_id("classes")).to_contain_text(EVIL)
        for position, name in enumerate((evil.name, problem.name)):
            cells(page).nth(position).click()
            expect(page.get_by_test_id("large-name")).to_have_text(name)
            expect(page.get_by_test_id("texts")).to_contain_text(EVIL)
            page.keyboard.press("Escape")
            expect(page.get_by_test_id("large")).to_be_hidden()
        page.get_by_role("checkbox", name=EVIL).check()
        expect(cells(page)).to_have_count(1)
        page.reload()
        expect(page.get_by_role("checkbox", name=EVIL)).to_be_checked()
        assert page.title() == "florence2 · labels"
        assert page.locator("img[src=x]").count() == 0


def test_a_picture_that_is_gone_and_a_run_that_grows(open_page: OpenPage, pictures: list[LabelledPicture], tmp_path: Path) -> None:
    growing = [replace(pictures[0], file=tmp_path / "gone.png"), pictures[1]]
    with viewing(growing) as address, open_page(address, errors_are_expected=True) as page:
        expect(cells(page).first).to_contain_text("can't be read")
        cells(page).first.click()
        expect(page.get_by_test_id("large-problem")).to_contain_text("the file is gone")
        page.keyboard.press("ArrowRight")
        expect(page.get_by_test_id("large-problem")).to_be_hidden()
        expect(page.locator(".viewer-object").first).to_be_attached()
        page.keyboard.press("Escape")
        growing.append(pictures[2])
        page.get_by_test_id("order").select_option("name")
        page.get_by_test_id("newer").click()
        expect(page.get_by_test_id("count")).to_have_text("3 pictures")
        with open_page(address, errors_are_expected=True) as other:  # another tab reads the run again
            growing.append(pictures[3])
            other.reload()
            expect(other.get_by_test_id("count")).to_have_text("4 pictures")
        cells(page).nth(1).click()
        expect(page.get_by_test_id("large-count")).to_have_text("3 of 4")  # the same picture; another stands before it now


@pytest.mark.parametrize(
    ("language", "theme", "screen"), [("en", "light", {}), ("ko", "dark", {}), ("ko", "light", PHONE), ("en", "dark", PHONE)]
)
def test_axe_finds_nothing_serious(address: str, open_page: OpenPage, language: str, theme: str, screen: dict[str, Any]) -> None:
    with open_page(address, locale={"en": "en-US", "ko": "ko-KR"}[language], color_scheme=theme, **screen) as page:
        expect(page.locator("#grid img").first).to_be_visible()
        if screen:
            page.locator("#filters summary").click()
            assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.get_by_label("heart").check()
        assert faults(page) == []
        cells(page).first.click()
        expect(page.locator(".viewer-object").first).to_be_attached()
        assert faults(page) == []
        assert page.evaluate("document.documentElement.lang") == language


def test_the_end_of_the_program_is_said(open_page: OpenPage, pictures: list[LabelledPicture]) -> None:
    with viewing(pictures[:3]) as address:
        opened = open_page(address, errors_are_expected=True)
        page = opened.__enter__()
        expect(cells(page)).to_have_count(3)
    try:
        cells(page).first.click()
        expect(page.get_by_test_id("large-problem")).to_contain_text("has probably ended")
        page.keyboard.press("Escape")
        page.get_by_test_id("order").select_option("name")
        expect(page.get_by_test_id("message")).to_contain_text("has probably ended")
    finally:
        opened.__exit__(None, None, None)
