"""The region: drawn, moved and resized by mouse, finger and keys, in whole pixels of the picture."""

from __future__ import annotations

from typing import Any

import pytest

from tests.playground.viewer.stage import PHONE, WHOLE, Stage, patched

pytestmark = pytest.mark.slow


class TestRegion:
    @pytest.fixture
    def drawing(self, stage: Stage) -> Stage:
        stage.show(patched(), [WHOLE])
        stage.run("() => viewer.startRegion(null)")
        return stage

    def drag(self, stage: Stage, start: tuple[float, float], end: tuple[float, float]) -> list[float]:
        """Drag the mouse between points of the picture; the region then."""
        stage.page.mouse.move(*stage.point(*start))
        stage.page.mouse.down()
        stage.page.mouse.move(*stage.point(*end), steps=5)
        stage.page.mouse.up()
        return stage.run("() => viewer.region")

    def test_drawn_moved_and_resized_by_mouse(self, drawing: Stage) -> None:
        assert self.drag(drawing, (50, 40), (150, 140)) == [50, 40, 150, 140]
        seen = drawing.events("region")
        assert [event["isFinal"] for event in seen] == [False] * (len(seen) - 1) + [True]
        assert seen[-1]["region"] == [50, 40, 150, 140]
        assert self.drag(drawing, (100, 90), (120, 100)) == [70, 50, 170, 150]
        assert self.drag(drawing, (170, 150), (200, 220)) == [70, 50, 200, 220]
        assert self.drag(drawing, (70, 135), (40, 200)) == [40, 50, 200, 220], "the left side alone"
        assert self.drag(drawing, (120, 50), (180, 20)) == [40, 20, 200, 220], "the upper side alone"
        assert self.drag(drawing, (200, 220), (20, 10)) == [20, 10, 40, 20], "past the other corner"
        assert self.drag(drawing, (300, 200), (350, 290)) == [300, 200, 350, 290], "another one"

    def test_drawn_backwards_and_past_the_edges(self, drawing: Stage) -> None:
        assert self.drag(drawing, (150, 140), (50, 40)) == [50, 40, 150, 140]
        drawing.run("() => viewer.startRegion(null)")
        assert self.drag(drawing, (350, 250), (1000, 1000)) == [350, 250, 400, 300]
        assert self.drag(drawing, (375, 275), (100, -500)) == [75, 0, 125, 50], "moved with its size"

    def test_zoomed_in_it_has_at_least_a_pixel(self, drawing: Stage) -> None:
        drawing.run("() => { for (let time = 0; time < 9; time++) viewer.zoomIn(); }")
        assert self.drag(drawing, (200.2, 150.2), (200.4, 150.4)) == [200, 150, 201, 151]
        assert self.drag(drawing, (201, 151), (203.2, 152.8)) == [200, 150, 203, 153]

    def test_escape_takes_back_what_is_being_drawn(self, drawing: Stage) -> None:
        self.drag(drawing, (50, 40), (150, 140))
        for start, end in (((300, 200), (350, 250)), ((100, 90), (130, 100))):
            drawing.page.mouse.move(*drawing.point(*start))
            drawing.page.mouse.down()
            drawing.page.mouse.move(*drawing.point(*end), steps=3)
            assert drawing.run("() => viewer.region") != [50, 40, 150, 140]
            drawing.page.keyboard.press("Escape")
            assert drawing.run("() => viewer.region") == [50, 40, 150, 140]
            drawing.page.mouse.move(*drawing.point(10, 10))
            drawing.page.mouse.up()
            assert drawing.run("() => viewer.region") == [50, 40, 150, 140]

    def test_a_click_draws_nothing(self, drawing: Stage) -> None:
        drawing.page.mouse.click(*drawing.point(200, 200))
        assert drawing.run("() => viewer.region") is None
        assert drawing.events("region") == []

    def test_by_keyboard(self, drawing: Stage) -> None:
        keyboard = drawing.page.keyboard
        keyboard.press("Tab")
        keyboard.press("Enter")
        x1, y1, x2, y2 = drawing.run("() => viewer.region")
        assert 0 < x1 < x2 < 400
        assert 0 < y1 < y2 < 300
        drawing.frame()
        assert drawing.run("() => document.activeElement.getAttribute('aria-label')") == f"Region {x1} {y1} {x2} {y2}"
        drawing.events("region")
        keyboard.press("ArrowRight")
        keyboard.press("ArrowDown")
        assert drawing.run("() => viewer.region") == [x1 + 1, y1 + 1, x2 + 1, y2 + 1]
        keyboard.press("Shift+ArrowLeft")
        keyboard.press("Shift+ArrowDown")
        assert drawing.run("() => viewer.region") == [x1 + 1, y1 + 1, x2, y2 + 2]
        assert [event["isFinal"] for event in drawing.events("region")] == [False, True] * 4

    def test_the_picture_is_zoomed_while_it_is_drawn(self, drawing: Stage) -> None:
        drawing.page.mouse.move(*drawing.point(100, 80))
        drawing.page.mouse.down()
        drawing.page.mouse.move(*drawing.point(200, 150), steps=3)
        drawing.page.mouse.wheel(0, -300)
        drawing.page.mouse.move(*drawing.point(210, 160), steps=3)
        drawing.page.mouse.up()
        assert drawing.run("() => viewer.region") == [100, 80, 210, 160]

    @pytest.mark.parametrize("button", ["middle", "left"])
    def test_the_picture_can_be_moved(self, drawing: Stage, button: Any) -> None:
        self.drag(drawing, (50, 40), (150, 140))
        drawing.run("() => viewer.zoomIn()")
        before = drawing.boxes()[0]
        if button == "left":
            drawing.page.keyboard.down("Space")
        drawing.page.mouse.move(400, 300)
        drawing.page.mouse.down(button=button)
        drawing.page.mouse.move(420, 330, steps=3)
        drawing.page.mouse.up(button=button)
        drawing.page.keyboard.up("Space")
        assert drawing.boxes()[0][:2] == pytest.approx([before[0] + 20, before[1] + 30])
        assert drawing.run("() => viewer.region") == [50, 40, 150, 140]

    def test_labels_leave_the_handles_free(self, drawing: Stage) -> None:
        drawing.layers({"id": "found", "objects": [{"label": "a long label of an object", "box": [100, 100, 180, 160]}]})
        drawing.run("() => viewer.startRegion([100, 90, 250, 200])")
        drawing.frame()
        (plate,) = drawing.rectangles(".viewer-label.is-placed")
        for left, top, right, bottom in drawing.rectangles(".viewer-handle"):
            assert right <= plate[0] or left >= plate[2] or bottom <= plate[1] or top >= plate[3]

    def test_deleted_by_key(self, drawing: Stage) -> None:
        self.drag(drawing, (50, 40), (150, 140))
        drawing.events("region")
        drawing.page.keyboard.press("Delete")
        assert drawing.run("() => viewer.region") is None
        assert drawing.events("region") == [{"region": None, "isFinal": True}]
        drawing.page.keyboard.press("Enter")
        assert drawing.run("() => viewer.region") is not None, "the focus stays, so that another can be begun"

    def test_drawn_on_the_next_picture_too(self, drawing: Stage) -> None:
        self.drag(drawing, (50, 40), (150, 140))
        drawing.show(patched(), [WHOLE], "next.png")
        assert drawing.run("() => viewer.region") is None
        assert self.drag(drawing, (10, 20), (30, 40)) == [10, 20, 30, 40]

    @pytest.mark.parametrize("stage", [PHONE], indirect=True)
    def test_by_touch(self, drawing: Stage) -> None:
        touch = drawing.touch()
        corners = [drawing.point(*spot) for spot in ((100, 80), (150, 120), (300, 200))]
        touch.drag(*[[corner] for corner in corners])
        region = drawing.run("() => viewer.region")
        assert region == pytest.approx([100, 80, 300, 200], abs=1)
        x, y = drawing.point(*region[2:])
        end = drawing.point(350, 250)
        touch.drag([(x + 16, y + 16)], [(x + 30, y + 20)], [(end[0] + 16, end[1] + 16)])
        assert drawing.run("() => viewer.region") == pytest.approx([100, 80, 350, 250], abs=2), "a finger need not hit the corner itself"
        before = drawing.run("() => viewer.region")
        touch.drag([(100, 300), (200, 300)], [(60, 300), (240, 300)])
        assert drawing.run("() => viewer.region") == before, "two fingers zoom"
        assert drawing.boxes()[0][0] < 0

    def test_given_shown_and_ended(self, stage: Stage) -> None:
        stage.show(patched(), [WHOLE])
        stage.run("() => viewer.startRegion([390.4, 280, 500, 299.6])")
        assert stage.run("() => viewer.region") == [390, 280, 400, 300]
        stage.frame()
        assert stage.page.locator(".viewer-handle:visible").count() == 8
        stage.run("() => viewer.endRegion()")
        assert stage.run("() => viewer.region") is None
        stage.frame()
        assert stage.page.locator(".viewer-handle:visible").count() == 0
        assert stage.events("region") == [], "only the user's changes are events"
