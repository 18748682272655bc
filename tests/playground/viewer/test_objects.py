"""Objects: pointed at, chosen, hidden, and reached by keys."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.playground.viewer.stage import NESTED, PHONE, WHOLE, Stage, patched

pytestmark = pytest.mark.slow


class TestObjects:
    @pytest.fixture
    def nested(self, stage: Stage) -> Stage:
        stage.show(patched(), [WHOLE, *NESTED])
        return stage

    def hovered(self, stage: Stage, x: float, y: float) -> Any:
        stage.page.mouse.move(*stage.point(x, y))
        return stage.run("() => events.filter(({ type }) => type === 'hover').at(-1)?.index")

    def test_the_smallest_under_the_pointer(self, nested: Stage) -> None:
        assert self.hovered(nested, 200, 150) == 2
        assert self.hovered(nested, 130, 250) == 1
        assert self.hovered(nested, 90, 90) == 3
        assert self.hovered(nested, 270, 100) == 4
        assert self.hovered(nested, 300, 100) == 1, "in the hole of the ring"
        assert self.hovered(nested, 20, 20) == 0
        nested.page.mouse.move(2, 2)
        assert nested.events("hover")[-1] == {"layerId": None}

    def test_emphasis_from_the_list(self, nested: Stage) -> None:
        lit = "() => [...document.querySelectorAll('.viewer-object.is-highlighted')].map((one) => one.getAttribute('aria-label'))"
        nested.run("() => viewer.highlight('found', 2)")
        assert nested.run(lit) == ["window, 40 %, box 150 100 250 200"]
        nested.run("() => viewer.highlight(null)")
        assert nested.run(lit) == []
        nested.run("() => viewer.highlight('other', 7)")
        assert nested.run(lit) == []
        assert nested.events("hover") == []
        nested.run("() => viewer.highlight('found', 2)")
        nested.layers({"id": "found", "title": "Objects", "visible": True, "objects": [WHOLE]})
        assert nested.page.locator(".has-highlight").count() == 0, "what is gone leaves nothing behind"

    def test_clicks_choose_and_reach_what_lies_below(self, nested: Stage) -> None:
        place = nested.point(200, 150)
        nested.page.mouse.click(*place)
        assert nested.events("select") == [], "nothing can be chosen yet"
        nested.run("() => viewer.setSelectable(true)")
        for index in (2, 1, 0, 2):
            nested.page.wait_for_timeout(360)  # else it is a double click
            nested.page.mouse.click(*place)
            assert nested.events("select") == [{"layerId": "found", "index": index}]
        nested.page.mouse.click(3, 3)
        assert nested.events("select") == []

    def test_by_keyboard(self, nested: Stage) -> None:
        nested.run("() => viewer.setSelectable(true)")
        keyboard = nested.page.keyboard
        keyboard.press("Tab")
        keyboard.press("Tab")
        names = []
        for key in ("ArrowRight", "ArrowDown", "End", "ArrowRight", "ArrowLeft"):
            keyboard.press(key)
            names.append(nested.run("() => document.activeElement.getAttribute('aria-label').split(',')[0]"))
        assert names == ["house", "window", "ring", "all", "ring"]
        assert nested.events("hover")[-1] == {"layerId": "found", "index": 4}
        keyboard.press("Enter")
        keyboard.press("Space")
        assert nested.events("select") == [{"layerId": "found", "index": 4}] * 2
        assert nested.run("() => document.activeElement.getAttribute('role')") == "button"
        keyboard.press("Escape")
        assert nested.run("() => document.activeElement.className").startswith("viewer-surface")

    def test_threshold_layers_and_streaming(self, nested: Stage) -> None:
        nested.run("() => viewer.setThreshold(0.5)")
        assert len(nested.boxes()) == 4
        assert "window 40 %" not in [label.replace("\n", " ") for label in nested.labels()]
        nested.run("() => viewer.addObject('found', { label: 'late', box: [1, 1, 20, 20], score: 0.6 })")
        nested.run("() => viewer.addObject('new', { label: 'later', box: [30, 1, 50, 20] })")
        nested.run("() => viewer.addObject('new', { label: 'unsure', box: [30, 1, 50, 20], score: 0.1 })")
        assert len(nested.boxes()) == 6
        nested.run("() => viewer.setThreshold(0)")
        assert len(nested.boxes()) == 8
        found = {"id": "found", "title": "Objects", "visible": False, "objects": [WHOLE, *NESTED]}
        nested.layers(found, {"id": "new", "title": "More", "visible": True, "objects": [NESTED[1]]})
        assert len(nested.boxes()) == 1
        nested.layers({**found, "visible": True})
        assert len(nested.boxes()) == 5
        assert nested.page.locator(".viewer-label").count() == 5

    def test_an_object_that_got_its_score_later(self, nested: Stage) -> None:
        nested.run(
            """() => {
                const objects = [{ label: "late", box: [10, 10, 90, 90] }];
                const layers = [{ id: "found", title: "", visible: true, objects }];
                viewer.setLayers(layers);
                objects[0].score = 0.25;
                viewer.setLayers(layers);
            }"""
        )
        assert [label.replace("\n", " ") for label in nested.labels()] == ["late 25 %"]

    def test_the_focus_stays_while_objects_come(self, nested: Stage) -> None:
        nested.page.locator(".viewer-object").nth(1).focus()
        nested.layers({"id": "found", "title": "Objects", "visible": True, "objects": [WHOLE, *NESTED, WHOLE]})
        assert nested.run("() => document.activeElement.getAttribute('aria-label')").startswith("house")

    def test_the_focus_stays_when_layers_change(self, nested: Stage) -> None:
        layers = [{"id": name, "title": name, "visible": True, "objects": NESTED} for name in ("a", "b", "c")]
        nested.layers(*layers)
        nested.page.locator(".viewer-object").nth(5).focus()
        for some in ([layers[1], layers[2]], layers, [layers[0], layers[1]]):
            nested.layers(*some)
            assert nested.run("() => document.activeElement.parentNode.getAttribute('aria-label')") == "b"
            titles = nested.run("() => [...document.querySelectorAll('.viewer-layer')].map((layer) => layer.getAttribute('aria-label'))")
            assert titles == [layer["title"] for layer in some]

    @pytest.mark.parametrize("stage", [PHONE], indirect=True)
    def test_a_finger_emphasizes_what_it_taps(self, nested: Stage) -> None:
        nested.page.touchscreen.tap(*nested.point(200, 150))
        assert nested.events("hover") == [{"layerId": "found", "index": 2}]
        assert nested.page.locator(".viewer-object.is-highlighted").count() == 1
        nested.run("() => viewer.setSelectable(true)")
        nested.page.wait_for_timeout(360)
        nested.page.touchscreen.tap(*nested.point(200, 150))
        assert nested.events("select") == [{"layerId": "found", "index": 2}]

    def test_labels_can_be_pointed_at(self, nested: Stage) -> None:
        nested.run("() => viewer.setSelectable(true)")
        nested.page.locator(".viewer-label.is-placed", has_text="door").click()
        assert nested.events("select") == [{"layerId": "found", "index": 3}]

    @pytest.mark.parametrize("stage", [{}, {"color_scheme": "dark"}], indirect=True)
    def test_axe_finds_nothing(self, nested: Stage) -> None:
        nested.run("() => { viewer.setSelectable(true); viewer.startRegion([20, 20, 60, 60]); viewer.zoomIn(); }")
        nested.frame()
        found = Axe().run(nested.page, context="#viewer")
        assert [violation["id"] for violation in found.response["violations"]] == []

    def test_colours(self, nested: Stage) -> None:
        colours = nested.run("() => ['all', 'house', 'window', 'door', 'ring', 'house'].map((label) => viewer.colorOf(label))")
        assert len(set(colours)) == 5
        assert colours[1] == colours[5]
        strokes = "() => [...document.querySelectorAll('.viewer-line')].map((line) => line.getAttribute('stroke'))"
        assert nested.run(strokes) == colours[:5]
        nested.show(patched(), [NESTED[3]], "next.png")
        assert nested.run(strokes) == [colours[4]], "a label keeps its colour from picture to picture"
        many = nested.run("() => Array.from({ length: 60 }, (_, index) => viewer.colorOf(`label ${index}`))")
        assert len(set(many)) == 60
        nested.show(patched(), [NESTED[3]], "last.png")
        assert nested.run(strokes) == [colours[0]], "until there are too many to be told apart"


def test_korean(stage: Stage) -> None:
    stage.show(patched(), [{"label": "car", "box": [1, 2, 30, 40], "score": 0.931}])
    stage.run(
        """async () => {
            const { WORDS } = await import("/words.js");
            viewer.setMessages(Object.fromEntries(Object.entries(WORDS).map(([key, row]) => [key, row[1]])));
        }"""
    )
    assert stage.page.locator(".viewer-object").get_attribute("aria-label") == "car, 93 %, 상자 1 2 30 40"
    assert stage.page.get_by_role("button", name="확대", exact=True).count() == 1
