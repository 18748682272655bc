"""What goes wrong on the page: each has a message and a way on, and nothing of an answer is ever more than text."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

import fixtures.fake_engine
from fixtures.fake_engine import FakeEngine
from florence2.answer_events import ObjectFound
from florence2.errors import EngineFailed, OutOfMemory
from florence2.results import FoundObject, Result
from florence2.tasks.prompt import Prompt
from tests.playground.conftest import OpenPage
from tests.playground.serving import ServerThread, serving
from tests.playground.tab import choose_task, finished, labels, layers, run, wait_for_picture
from tests.server.scripted import ScriptedEngine
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

KEY = "KEY1234567890"
MARKUP = '<img src=x onerror="window.isHurt=true"><script>window.isHurt=true</script><b>bold</b>'


def error(page: Page, kind: str) -> str:
    """The error's text, once there is one of this kind."""
    box = page.get_by_test_id("error")
    expect(box).to_have_attribute("data-kind", kind)
    return box.inner_text()


def test_files_that_are_no_pictures(open_page: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + bytes(50))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "film.mp4").write_bytes(bytes(60 * 2**20))
    with serving(FakeEngine()) as server, open_page(server.url) as page:
        wait_for_picture(page, "scene.png")
        for name in ("broken.png", "notes.txt", "film.mp4"):
            page.set_input_files("#file", tmp_path / name)
            expect(page.get_by_test_id("error-message")).to_contain_text(name)
            assert "JPEG or PNG" in error(page, "image")
        page.get_by_test_id("error-dismiss").click()
        expect(page.get_by_test_id("error")).to_have_count(0)
        run(page, "OD")  # the picture from before is still there


def test_a_picture_of_60_mb_is_made_smaller_and_says_so(open_page: OpenPage, tmp_path: Path) -> None:
    Image.new("RGB", (4600, 4600), "teal").save(tmp_path / "large.bmp")
    assert (tmp_path / "large.bmp").stat().st_size > 60 * 2**20
    engine = FakeEngine()
    with serving(engine) as server, open_page(server.url) as page:
        wait_for_picture(page, "scene.png")
        page.set_input_files("#file", tmp_path / "large.bmp")
        expect(page.locator("#picture-name")).to_contain_text("large.bmp is too large for this server")
        run(page, "OD")
        assert 1000 < max(engine.pictures[-1].size) <= 4600


def test_a_server_that_takes_less_than_the_page_thinks(open_page: OpenPage) -> None:
    with serving(FakeEngine()) as server, open_page(server.url, errors_are_expected=True) as page:
        wait_for_picture(page, "scene.png")
        settings = server.app.state.server.settings
        server.app.state.server.settings = settings.model_copy(update={"max_body_bytes": 1000})
        page.click("#run")
        assert "1000 bytes" in error(page, "large")
        assert "smaller picture" in error(page, "large")


def test_a_file_that_is_changed_or_moved_after_it_was_chosen(open_page: OpenPage, tmp_path: Path) -> None:
    file, engine = tmp_path / "mine.png", FakeEngine()
    Image.new("RGB", (40, 30)).save(file)
    with serving(engine) as server, open_page(server.url) as page:
        wait_for_picture(page, "scene.png")
        page.set_input_files("#file", file)
        wait_for_picture(page, "mine.png, 40")
        file.unlink()
        run(page, "OD")
        assert engine.pictures[-1].size == (40, 30)


def test_a_picture_that_comes_too_late(open_page: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with serving(FakeEngine()) as server, open_page(server.url, errors_are_expected=True) as page:
        wait_for_picture(page, "scene.png")
        fetches: list[Route] = []
        page.route("**/playground/image", lambda route: fetches.append(route))
        for give_up in (
            lambda: page.set_input_files("#file", tmp_path / "notes.txt"),
            lambda: page.get_by_test_id("example-scene.png").click(),
        ):
            page.fill("#link", "https://example.com/a.png")
            page.click("#fetch-link")
            expect(page.locator("#picture-name")).to_contain_text("Fetching")
            give_up()
            wait_for_picture(page, "scene.png")
            fetches.pop().abort()
            page.wait_for_timeout(50)
            wait_for_picture(page, "scene.png")


def test_text_where_none_belongs(open_page: OpenPage) -> None:
    with serving(FakeEngine()) as server, open_page(server.url, errors_are_expected=True) as page:
        wait_for_picture(page, "scene.png")
        choose_task(page, "own")
        page.fill("#text", "<OD>the yellow star")
        page.press("#text", "Enter")
        assert "<OD>" in error(page, "prompt")
        expect(page.locator("#text")).to_be_focused()
        choose_task(page, "OPEN_VOCABULARY_DETECTION")
        page.fill("#text", ",".join(f"thing {number}" for number in range(40)))
        page.press("#text", "Enter")
        expect(page.get_by_test_id("error-message")).to_contain_text("got 40")
        assert "picture" not in error(page, "prompt")
        expect(page.locator("#text")).to_be_focused()
        expect(layers(page)).to_have_count(0)


def test_a_wrong_key_and_a_right_one(open_page: OpenPage) -> None:
    with serving(FakeEngine(), api_keys=[KEY]) as server, open_page(server.url, errors_are_expected=True) as page:
        wait_for_picture(page, "scene.png")
        expect(page.locator("#key")).to_be_visible()
        for key, words in (("", "asks for a key"), ("wrong-key-123", "does not know"), ("\ud55c\uae00", "\ud55c")):
            page.fill("#key", key)
            page.click("#run")
            expect(page.get_by_test_id("error")).to_contain_text(words)
            assert "key" in error(page, "key")
            expect(page.locator("#key")).to_be_focused()
        page.fill("#key", KEY)
        page.click("#run")
        finished(page, 1)
        stored = "JSON.stringify([{...sessionStorage}, {...localStorage}])"
        assert KEY not in page.evaluate(stored)
        assert KEY not in page.url
        page.check("#keep-key")
        assert KEY in page.evaluate(stored)
        page.reload()
        wait_for_picture(page, "scene.png")
        expect(page.locator("#key")).to_have_value(KEY)
        page.uncheck("#keep-key")
        assert KEY not in page.evaluate(stored)


def test_a_server_without_room_is_asked_again(open_page: OpenPage) -> None:
    engine = FakeEngine()
    with (
        serving(engine, max_requests=1) as server,
        open_page(server.url) as first,
        open_page(server.url, errors_are_expected=True) as second,
    ):
        wait_for_picture(first, "scene.png")
        wait_for_picture(second, "scene.png")
        engine.hold = True
        first.click("#run")
        wait_until(lambda: server.num_slots == 1)
        second.click("#run")
        assert "Wait a moment" in error(second, "busy")
        engine.release()
        finished(first, 1)
        wait_until(lambda: server.num_slots == 0)
        second.get_by_test_id("error-retry").click()
        finished(second, 1)


def test_a_closed_tab_and_a_stopped_run_free_their_places(open_page: OpenPage) -> None:
    engine = FakeEngine()
    engine.hold = True
    with serving(engine) as server:
        with open_page(server.url) as page:
            wait_for_picture(page, "scene.png")
            page.click("#run")
            wait_until(lambda: server.num_slots == 1)
            page.click("#stop")
            wait_until(lambda: server.num_slots == 0)
            expect(page.locator("#live")).to_have_text("Stopped.")
            engine.hold = False
            run(page, "CAPTION")
            engine.hold = True
            page.click("#run")
            wait_until(lambda: server.num_slots == 1)
            page.click("#remove-all")
            wait_until(lambda: server.num_slots == 0)
            page.click("#run")
            wait_until(lambda: server.num_slots == 1)
            page.close()
            wait_until(lambda: server.num_slots == 0)
        assert [future.cancelled() for future in engine.futures] == [True, False, True, True]


def test_a_server_that_is_gone_and_comes_back(open_page: OpenPage) -> None:
    server = ServerThread(FakeEngine(), {})
    with open_page(server.url, errors_are_expected=True) as page:
        wait_for_picture(page, "scene.png")
        server.stop()
        page.click("#run")
        assert "does not answer" in error(page, "gone")
        again = ServerThread(FakeEngine(), {}, server.port)
        try:
            page.get_by_test_id("error-retry").click()
            expect(layers(page).first).to_have_attribute("data-state", "done")
            expect(page.get_by_test_id("error")).to_have_count(0)
        finally:
            again.stop()


def test_an_answer_that_breaks_off(open_page: OpenPage) -> None:
    engine = FakeEngine()
    with serving(engine) as server, open_page(server.url, errors_are_expected=True) as page:
        wait_for_picture(page, "scene.png")
        cut = 'event: text\ndata: {"image_index": 0, "prompt_index": 0, "text": "a red"}\n\n'
        page.route("**/infer/lmm", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=cut))
        choose_task(page, "CAPTION")
        page.click("#run")
        assert "broke off" in error(page, "broken")
        expect(layers(page).first.get_by_test_id("layer-text")).to_have_text("a red")
        page.unroute("**/infer/lmm")
        engine.failure = OutOfMemory("no memory")
        page.click("#run")
        error(page, "busy" if OutOfMemory.status != 500 else "server")


def test_storage_that_holds_nonsense(open_page: OpenPage) -> None:
    with serving(FakeEngine()) as server, open_page(server.url) as page:
        wait_for_picture(page, "scene.png")
        page.evaluate("['drafts', 'code', 'model', 'key'].forEach((name) => sessionStorage.setItem(`florence2.${name}`, '{no'))")
        page.evaluate("['language', 'theme'].forEach((name) => localStorage.setItem(`florence2.${name}`, '{no'))")
        page.reload()
        wait_for_picture(page, "scene.png")
        run(page, "OD")
        page.click("#code-open")
        expect(page.locator("#code-text")).to_contain_text("curl")


def test_links_that_lead_nowhere(open_page: OpenPage) -> None:
    with serving(FakeEngine()) as server, open_page(server.url, errors_are_expected=True) as page:
        wait_for_picture(page, "scene.png")
        for link, words in (("nonsense", "https://"), ("https://localhost/a.png", "can't be had")):
            page.fill("#link", link)
            page.click("#fetch-link")
            expect(page.get_by_test_id("error-message")).to_contain_text(words)
    with serving(FakeEngine(), allow_urls=False) as server, open_page(server.url) as page:
        wait_for_picture(page, "scene.png")
        expect(page.locator("#link")).to_be_hidden()


def test_markup_in_answers_is_text(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = fixtures.fake_engine.answer_to

    def answer_to(prompt: Prompt, size: tuple[int, int], scores: bool) -> Result:
        result = plain(prompt, size, scores)
        result.labels[:] = [MARKUP for _ in result.labels]
        return result if result.boxes else Result(**{**vars(result), "text": MARKUP})

    monkeypatch.setattr(fixtures.fake_engine, "answer_to", answer_to)
    with serving(FakeEngine()) as server, open_page(server.url) as page:
        wait_for_picture(page, "scene.png")
        assert labels(run(page, "OD")) == [MARKUP]
        layers(page).first.get_by_test_id("object").click()
        expect(page.locator("#picked")).to_contain_text("<b>bold</b>")
        assert run(page, "CAPTION").get_by_test_id("layer-text").inner_text() == MARKUP
        assert run(page, "own", text=MARKUP).get_by_test_id("layer-text").inner_text() == MARKUP
        page.click("#code-open")
        expect(page.locator("#code-text")).to_contain_text("onerror=")
        page.wait_for_timeout(100)
        assert page.evaluate("window.isHurt") is None
        assert page.locator("#viewer b, #layers b, #layers img, #picked img, #code-text img").count() == 0


def test_a_file_whose_name_is_markup(open_page: OpenPage, tmp_path: Path) -> None:
    name = "<img src=x onerror=window.isHurt=true>.png"
    Image.new("RGB", (40, 30)).save(tmp_path / name)
    with serving(FakeEngine()) as server, open_page(server.url) as page:
        wait_for_picture(page, "scene.png")
        page.set_input_files("#file", tmp_path / name)
        wait_for_picture(page, name)
        run(page, "OD")
        assert page.evaluate("window.isHurt") is None


def test_labels_that_turn_or_hide_what_stands_beside_them(open_page: OpenPage) -> None:
    names = ["\u202etxt.exe\u202c", "\n \u200b", "a\0b", "x" * 10_000, "\u0645\u0631\u062d\u0628\u0627"]
    objects = [ObjectFound(FoundObject(name, (20 * place, 40, 20 * place + 30, 90)), [], place) for place, name in enumerate(names)]
    with serving(ScriptedEngine(objects, EngineFailed("no more"))) as server, open_page(server.url, errors_are_expected=True) as page:
        wait_for_picture(page, "scene.png")
        page.click("#run")
        assert "Request id: " in error(page, "server")
        layer = layers(page).first
        assert [label[:20] for label in labels(layer)] == ["txt.exe", "object 2", "a b", "x" * 20, names[4]]
        layer.get_by_test_id("object").nth(3).click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_an_object_costs_the_same_however_many_there_are(open_page: OpenPage) -> None:
    with serving(FakeEngine()) as server, open_page(server.url) as page:
        wait_for_picture(page, "scene.png")
        num_named = page.evaluate(
            """async () => {
                const { Overlay } = await import("/playground/assets/viewer/overlay.js");
                let count = 0;
                const overlay = new Overlay({ of: () => "#0072B2" }, () => String(++count));
                for (let index = 0; index < 300; index++) overlay.add("l", { label: "cat", box: [index, 0, index + 9, 9] });
                return count;
            }"""
        )
        assert num_named <= 3 * 300  # all others were named anew with each object once
