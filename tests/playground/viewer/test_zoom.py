"""The picture: outlines lie on it at any zoom, and it is moved and zoomed by pointers and keys."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.playground.viewer.stage import PATCH, PHONE, WHOLE, Stage, patched

pytestmark = pytest.mark.slow


def patch_on_screen(stage: Stage) -> list[float]:
    """Where the blue patch is, by the canvas's pixels."""
    stage.frame()
    return stage.run(
        """() => {
            const canvas = document.querySelector(".viewer-picture");
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
            copy.drawImage(canvas, 0, 0);
            const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
            const box = [Infinity, Infinity, 0, 0];
            for (let y = 0, at = 0; y < canvas.height; y++) for (let x = 0; x < canvas.width; x++, at += 4) {
                if (data[at] > 128 || data[at + 2] < 128 || !data[at + 3]) continue;
                [x, y].forEach((value, axis) => {
                    box[axis] = Math.min(box[axis], value);
                    box[axis + 2] = Math.max(box[axis + 2], value + 1);
                });
            }
            const { left, top } = canvas.getBoundingClientRect();
            return box.map((value, index) => value / devicePixelRatio + (index % 2 ? top : left));
        }"""
    )


SIZES = [
    {"viewport": {"width": 800, "height": 600}},
    PHONE,
    {"viewport": {"width": 1203, "height": 411}, "device_scale_factor": 1.25},
]


@pytest.mark.parametrize("stage", SIZES, indirect=True)
def test_outlines_lie_on_the_picture(stage: Stage) -> None:
    stage.show(patched(), [{"label": "patch", "box": list(PATCH)}])
    for action in ("fit", "zoomIn", "zoomIn", "zoomOut"):
        stage.run(f"() => viewer.{action}()")
        width, height = stage.run("() => [innerWidth, innerHeight]")
        seen = [min(max(value, 0), (width, height)[index % 2]) for index, value in enumerate(stage.boxes()[0])]
        assert seen == pytest.approx(patch_on_screen(stage), abs=1.01)


def test_objects_are_in_the_pixels_of_the_size_that_was_named(stage: Stage) -> None:
    url = stage.serve("small.png", patched())
    stage.run("url => viewer.setImage({ url, name: 'small.png', width: 4000, height: 3000 })", url)
    stage.layers({"id": "a", "title": "", "visible": True, "objects": [{"label": "patch", "box": [10 * value for value in PATCH]}]})
    assert stage.boxes()[0] == pytest.approx(patch_on_screen(stage), abs=1.01)


@pytest.mark.parametrize(("modifier", "spot"), [(None, (0.5, 0.5)), (None, (10, 290)), ("Control", (399, 1)), ("Control", (110, 70))])
def test_the_wheel_zooms_around_the_pointer(stage: Stage, modifier: str | None, spot: tuple[float, float]) -> None:
    stage.show(patched(), [WHOLE])
    pointer = [round(value) for value in stage.point(*spot)]  # wheel events have whole pixels
    stage.page.mouse.move(*pointer)
    if modifier:
        stage.page.keyboard.down(modifier)
    before = stage.boxes()[0]
    for delta in (-100, -100, -100, 100):
        stage.page.mouse.wheel(0, delta)
        after = stage.boxes()[0]
        factor = (after[2] - after[0]) / (before[2] - before[0])
        assert (factor > 1) == (delta < 0)
        fixed = [pointer[index % 2] + factor * (value - pointer[index % 2]) for index, value in enumerate(before)]
        assert after == pytest.approx(fixed, abs=0.1)
        before = after
    if modifier:
        stage.page.keyboard.up(modifier)


@pytest.mark.parametrize("stage", [PHONE], indirect=True)
def test_two_fingers_zoom_and_move(stage: Stage) -> None:
    stage.show(patched(), [WHOLE])
    x, y = stage.point(200, 150)
    scale = stage.boxes()[0][2] - stage.boxes()[0][0]
    stage.touch().drag(*[[(x - 20 - step, y), (x + 20 + step + 10, y + 30)] for step in range(0, 41, 10)])
    left, _, right, _ = stage.boxes()[0]
    assert right - left > 1.8 * scale
    # The finger that stood on the middle moved to the left; what lay under it did too.
    stage.run("() => viewer.fit()")
    stage.touch().drag([(x - 40, y), (x + 40, y)], [(x - 80, y), (x + 80, y)], [(x - 80, y + 50), (x + 80, y + 50)])
    assert stage.point(200, 150) == pytest.approx((x, y + 50), abs=2)


def test_drag_arrows_and_double_click(stage: Stage) -> None:
    stage.show(patched(), [WHOLE])
    whole = stage.boxes()[0]
    stage.page.mouse.move(400, 300)
    stage.page.mouse.wheel(0, -400)
    before = stage.boxes()[0]
    stage.page.mouse.down()
    stage.page.mouse.move(430, 260, steps=4)
    stage.page.mouse.up()
    assert stage.boxes()[0] == pytest.approx([before[0] + 30, before[1] - 40, before[2] + 30, before[3] - 40], abs=1)
    stage.page.keyboard.press("ArrowRight")
    assert stage.boxes()[0][0] < before[0] + 30
    stage.page.mouse.dblclick(430, 260)
    assert stage.boxes()[0] == pytest.approx(whole, abs=0.1)
    stage.page.keyboard.press("+")
    assert stage.boxes()[0][0] < whole[0]
    stage.page.keyboard.press("0")
    assert stage.boxes()[0] == pytest.approx(whole, abs=0.1)
    stage.page.set_viewport_size({"width": 500, "height": 500})
    assert stage.boxes()[0][2] < 500


def test_the_picture_can_not_be_lost(stage: Stage) -> None:
    stage.show(patched(), [WHOLE])
    stage.page.keyboard.press("Tab")
    stage.page.keyboard.press("+")
    for _ in range(40):
        stage.page.keyboard.press("ArrowLeft")
    left, _, right, _ = stage.boxes()[0]
    assert left < 401
    assert right > 399
    for _ in range(30):
        stage.page.keyboard.press("+")
    left, _, right, _ = stage.boxes()[0]
    assert right - left == pytest.approx(400 * 64, rel=0.01)
    for _ in range(40):
        stage.page.keyboard.press("-")
    assert stage.boxes()[0][0] >= 0


def test_a_picture_that_is_none(stage: Stage) -> None:
    stage.show(patched(), [WHOLE])
    url = stage.serve("broken.png", b"no picture")
    failure = stage.run("url => viewer.setImage({ url, name: 'broken.png' }).then(() => null, (error) => error.message)", url)
    assert failure.startswith("The browser can't show this picture")
    assert len(stage.boxes()) == 1, "what was shown before stays"
    stage.run("() => viewer.clear()")
    assert stage.boxes() == []
    assert stage.run("() => viewer.toPng().then(() => null, (error) => error.message)") == "No picture"
    assert stage.run("() => viewer.region") is None


def test_a_photo_on_its_side_is_shown_upright(stage: Stage) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    patched().transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", exif=exif, quality=95)
    stage.run("url => viewer.setImage({ url, name: 'turned.jpg' })", stage.serve("turned.jpg", file.getvalue()))
    stage.layers({"id": "a", "title": "", "visible": True, "objects": [{"label": "patch", "box": list(PATCH)}]})
    assert stage.boxes()[0] == pytest.approx(patch_on_screen(stage), abs=1.5)


def test_transparent_pixels_are_white(stage: Stage) -> None:
    stage.show(Image.new("RGBA", (40, 30), (0, 0, 0, 0)), [])
    stage.frame()
    middle = "() => [...document.querySelector('.viewer-picture').getContext('2d').getImageData(400, 300, 1, 1).data]"
    assert stage.run(middle) == [255, 255, 255, 255]


def test_the_last_picture_wins(stage: Stage) -> None:
    large, small = stage.serve("large.png", patched(4000, 3000)), stage.serve("small.png", patched(300, 300))
    stage.run("urls => Promise.all(urls.map((url) => viewer.setImage({ url, name: url })))", [large, small])
    assert stage.run("() => document.querySelector('.viewer-picture').ariaLabel").startswith("Picture /small.png, 300")
