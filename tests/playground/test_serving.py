"""How servers offer the page: below a path, with several models, while a model is loaded, and not at all."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from fixtures.fake_engine import FakeEngine
from florence2.server.errors import ModelLoading
from tests.playground.conftest import OpenPage
from tests.playground.serving import serving
from tests.playground.tab import labels, run, sent_bodies, wait_for_picture

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("path", ["/vision", "/vision/"])
def test_a_page_below_a_path(open_page: OpenPage, path: str) -> None:
    with serving(FakeEngine(), root_path="/vision") as server, open_page(server.url, path=path) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.removeprefix(server.url)))
        page.reload()
        wait_for_picture(page, "scene.png")
        assert labels(run(page, "OD")) == ["thing"]
        assert [address for address in asked if not address.startswith(("/vision", "blob:"))] == []
        expect(page.locator("#docs-link")).to_have_attribute("href", f"{server.url}/vision/docs")
        page.click("#code-open")
        expect(page.locator("#code-text")).to_contain_text(f"{server.url}/vision/infer/lmm")


def test_the_chosen_model_is_asked(open_page: OpenPage) -> None:
    engine = FakeEngine()
    with serving(engine, model=["florence-2-base"], models={"mine": "florence-2-large"}) as server, open_page(server.url) as page:
        wait_for_picture(page, "scene.png")
        run(page, "OD")
        page.select_option("#model", "mine")
        run(page, "CAPTION")
        assert [body["model_id"] for body in sent_bodies(page)] == ["florence-2-base", "mine"]


def test_a_model_that_is_still_loaded_is_waited_for(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FakeEngine()) as server, open_page(server.url, errors_are_expected=True) as page:
        wait_for_picture(page, "scene.png")

        async def loading(*_: object) -> None:
            raise ModelLoading("florence-2-demo is being loaded; send the request again in a moment")

        with monkeypatch.context() as patch:
            patch.setattr(server.app.state.server.models, "get", loading)
            page.click("#run")
            expect(page.get_by_test_id("error")).to_have_attribute("data-kind", "loading")
            expect(page.get_by_test_id("error-retry")).to_contain_text("s)")  # what is left of Retry-After
        page.get_by_test_id("error-retry").click()
        expect(page.get_by_test_id("layer").first).to_have_attribute("data-state", "done")


def test_where_the_page_is_off_a_plain_one_answers(open_page: OpenPage) -> None:
    with serving(FakeEngine(), playground=False) as server, open_page(server.url) as page:
        expect(page.locator("h1")).to_contain_text("florence2")
        expect(page.locator("script")).to_have_count(0)
