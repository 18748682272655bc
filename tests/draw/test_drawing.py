"""Drawing leaves the original alone, marks what was found where it was found, and writes texts below."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont

from florence2.draw import COLOURS, annotate, layout
from florence2.draw.drawing import arrange
from florence2.draw.fonts import OWN_FONT, Fonts
from florence2.draw.layout import Rectangle
from florence2.draw.marks import colour_of, contrast, letters_on, marks_of
from florence2.draw.painting import pens_for
from florence2.errors import InvalidImage, InvalidOption
from florence2.results import Result

GREY = (128, 128, 128)


def picture(width: int = 320, height: int = 240) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def result(kind: str, size: tuple[int, int] = (320, 240), **content) -> Result:
    return Result("<TASK>", kind, size, content.pop("text", ""), "", **content)  # type: ignore[arg-type]


def changed(image: Image.Image) -> np.ndarray:
    return (np.asarray(image) != GREY).any(-1)


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def test_boxes_are_drawn_where_they_are() -> None:
    original = picture()
    drawn = annotate(original, result("boxes", boxes=[[50, 100, 200, 220]], labels=[""]))
    assert not changed(original).any()
    marks = changed(drawn)
    assert marks[100:220, 50].all()
    assert marks[220, 50:200].all()
    assert not marks[120:200, 70:180].any()
    assert not marks[:90].any()
    assert drawn.getpixel((50, 150)) == rgb(COLOURS[0])


def test_a_label_has_one_colour_and_another_label_another() -> None:
    boxes = [[10, 40, 60, 90], [100, 40, 150, 90], [200, 40, 250, 90]]
    drawn = annotate(picture(), result("boxes", boxes=boxes, labels=["cat", "dog", "cat"], scores=[0.9, 0.8, 0.7]))
    assert drawn.getpixel((10, 70)) == drawn.getpixel((200, 70)) == rgb(COLOURS[0])
    assert drawn.getpixel((100, 70)) == rgb(COLOURS[1])


def test_scores_make_labels_wider() -> None:
    content = {"boxes": [[10, 100, 300, 200]], "labels": ["cat"]}
    without = changed(annotate(picture(), result("boxes", **content)))[:95].sum()
    assert changed(annotate(picture(), result("boxes", **content, scores=[0.5])))[:95].sum() > without


def test_polygons_are_tinted_inside() -> None:
    drawn = annotate(picture(), result("polygons", polygons=[[[50, 50, 250, 50, 250, 200, 50, 200], [1, 2]]], labels=[""]))
    inside = np.asarray(drawn)[120, 150]
    assert tuple(inside) not in (GREY, rgb(COLOURS[0]))
    assert not changed(drawn)[220:].any()


def test_quads_are_closed() -> None:
    drawn = annotate(picture(), result("quads", quads=[[50, 50, 250, 80, 240, 200, 60, 180]], labels=["HELLO"]))
    assert changed(drawn)[115, 50:60].any()  # the closing edge, on the left


@pytest.mark.parametrize(
    ("kind", "content"), [("text", {"text": "word " * 60}), ("text", {"text": "x" * 500}), ("boxes", {}), ("text", {})]
)
def test_texts_stand_below_the_picture(kind: str, content: dict) -> None:
    drawn = annotate(picture(), result(kind, **content))
    assert drawn.width == 320
    assert drawn.height > 240
    assert not changed(drawn)[:240].any()
    below = np.asarray(drawn)[240:]
    assert (below < 100).any()  # letters
    assert (below[:, -3:] > 200).all()  # that stay inside


@pytest.mark.parametrize("size", [(1, 1), (3000, 20), (20, 900), (32, 32)])
def test_odd_sizes(size: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    boxes = result("boxes", size, boxes=[[0, 0, *size], [-5, -5, 9999, 9999]], labels=["a long label for a small picture", "b"])
    assert annotate(Image.new("RGB", size), boxes).size == size
    assert annotate(Image.new("RGB", size), result("text", size, text="word")).width == max(size[0], 64)
    assert all("have no room" in record.message for record in caplog.records)


def test_what_is_no_result_is_refused() -> None:
    for other in ({"<OD>": {"bboxes": [], "labels": []}}, picture(), None):
        with pytest.raises(InvalidOption, match=r"must be a Result, got .*from_dict") as caught:
            annotate(picture(), other)  # type: ignore[arg-type]
        assert caught.value.field == "result"


def test_words_below_a_tiny_picture_can_be_read() -> None:
    drawn = annotate(Image.new("RGB", (12, 9), "#808080"), result("text", (12, 9), text="a white circle and a yellow star"))
    assert drawn.width == 64
    assert drawn.height < 90  # four lines, not one for each letter
    assert (np.asarray(drawn)[:9, :12] == 128).all()
    assert (np.asarray(drawn)[:9, 12:] == 255).all()


def test_many_more_labels_than_have_room_take_no_longer_than_those_that_have(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = 0

    def counted(*arguments: Any) -> Any:
        nonlocal searches
        searches += 1
        return nearest_first(*arguments)

    nearest_first = layout._nearest_first
    monkeypatch.setattr(layout, "_nearest_first", counted)
    spots = layout.place_plates([(50, 50)] * 500, [Rectangle(10, 10, 20, 20)] * 500, (100, 100))
    assert spots[0] is not None
    assert spots[-1] is None
    assert searches < 20


def test_boxes_at_the_edge_are_seen_whole() -> None:
    drawn = np.asarray(annotate(picture(), result("boxes", boxes=[[0, 0, 320, 240]], labels=[""])))
    colour = rgb(COLOURS[0])
    for side in (drawn[:, 1], drawn[:, -2], drawn[1], drawn[-2]):
        assert (side[5:-5] == colour).all()


@pytest.mark.parametrize("box", [[50, 50, 50, 50], [200, 150, 60, 40], [10.4, 20.6, 90.2, 80.8]])
def test_boxes_without_area_upside_down_or_in_fractions(box: list[float]) -> None:
    drawn = annotate(picture(), result("boxes", boxes=[box], labels=["thing"]))
    assert drawn.getpixel((round(min(box[0], box[2])), round(max(box[1], box[3])))) == rgb(COLOURS[0])


def test_many_labels_have_many_colours() -> None:
    boxes = [[10 * index, 200, 10 * index + 5, 230] for index in range(30)]
    marks = list(marks_of(result("boxes", boxes=boxes, labels=[f"label {index}" for index in range(30)])))
    assert len({mark.colour for mark in marks}) == 30


@pytest.mark.parametrize("index", range(40))
def test_letters_stand_out_from_their_plate(index: int) -> None:
    colour = colour_of(index)
    assert contrast(letters_on(colour), colour) >= 4.5


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#FFFFFF", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)  # WCAG's own example of just too little


def words(num_words: int) -> str:
    return " ".join(["crowded", "street", "a", "Straße", "naïve"][index % 5] for index in range(num_words))


@pytest.mark.parametrize(
    ("size", "num_objects", "label"),
    [
        ((640, 480), 60, "bicycle"),
        ((32, 32), 60, "b"),
        ((8000, 6000), 60, "person"),
        ((320, 240), 5, words(20)),
        ((1000, 1000), 200, "car"),
    ],
)
def test_plates_stay_inside_and_apart(size: tuple[int, int], num_objects: int, label: str, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(7)
    corners = rng.integers(0, size, (num_objects, 2))
    boxes = [[int(x), int(y), int(x + size[0] / 8), int(y + size[1] / 8)] for x, y in corners]
    marks = list(marks_of(result("boxes", size, boxes=boxes, labels=[label] * num_objects, scores=[0.5] * num_objects)))
    labels = arrange(marks, size, Fonts())
    plates = [plate.spot for plate in labels.plates]
    assert all(spot.left >= 0 and spot.top >= 0 and spot.right <= size[0] and spot.bottom <= size[1] for spot in plates)
    assert not any(overlap(first, second) for index, first in enumerate(plates) for second in plates[index + 1 :])
    assert len(plates) + labels.num_left_out == num_objects
    if size == (32, 32):  # sixty do not fit; that is said, and some are there
        assert len(plates) >= 2
        assert "of 60 labels have no room in 32 x 32 pixels" in caplog.text
    else:
        assert labels.num_left_out == 0


def overlap(first: Rectangle, second: Rectangle) -> bool:
    return first.left < second.right and second.left < first.right and first.top < second.bottom and second.top < first.bottom


def test_long_labels_are_wrapped_and_line_breaks_kept() -> None:
    boxes = [[100, 200, 500, 400], [100, 100, 200, 150]]
    labels = arrange(list(marks_of(result("boxes", (640, 480), boxes=boxes, labels=[words(20), "one\ntwo"]))), (640, 480), Fonts())
    long, short = labels.plates
    assert 2 < len(long.lines) <= 8
    assert " ".join(long.lines) == words(20)
    assert long.spot.right - long.spot.left <= 300
    assert short.lines == ["one", "two"]


def test_labels_that_were_moved_away_have_a_leader() -> None:
    boxes = [[150, 110, 160, 120]] * 12
    boxes_result = result("boxes", boxes=boxes, labels=[f"label {index}" for index in range(12)])
    labels = arrange(list(marks_of(boxes_result)), (320, 240), Fonts())
    far = max(labels.plates, key=lambda plate: plate.spot.distance(plate.mark.box))
    assert far.spot.distance(far.mark.box) > 15
    x, y = (
        min(max(middle, low), high)
        for middle, low, high in ((155, far.spot.left, far.spot.right - 1), (115, far.spot.top, far.spot.bottom - 1))
    )
    between = np.asarray(annotate(picture(), boxes_result))[
        round((y + 115) / 2) - 3 : round((y + 115) / 2) + 4, round((x + 155) / 2) - 3 : round((x + 155) / 2) + 4
    ]
    assert (between != GREY).any()


def star(x: float, y: float, radius: float) -> list[int]:
    angles = np.arange(20) * np.pi / 10
    radii = radius * (1 + 0.3 * np.cos(5 * angles))
    return [round(value) for pair in zip(x + radii * np.cos(angles), y + radii * np.sin(angles), strict=True) for value in pair]


def test_masks_are_translucent_with_smooth_edges() -> None:
    drawn = np.asarray(annotate(picture(), result("polygons", polygons=[[star(160, 120, 70)]], labels=[""]))).astype(float)
    colour = np.array(rgb(COLOURS[0]))
    assert drawn[120, 160] == pytest.approx(np.array(GREY) * 0.66 + colour * 0.34, abs=2)
    row = drawn[:, 160]
    assert (row == colour).all(1).any()  # the line itself has the whole colour
    steps = {tuple(pixel) for line in drawn[60:180] for pixel in line}
    assert len(steps) > 20  # and its edges many shades


def test_masks_of_one_label_are_told_apart_where_they_overlap() -> None:
    overlapping = result("polygons", polygons=[[star(140, 120, 70)], [star(190, 120, 70)]], labels=["cat", "cat"])
    drawn = np.asarray(annotate(picture(), overlapping)).astype(int)
    one, both = drawn[120, 100], drawn[120, 165]
    assert np.abs(one - both).max() > 20


def test_all_parts_of_a_mask_are_drawn_also_those_without_area() -> None:
    polygons = [[[20, 20, 60, 20, 60, 60], [200, 150, 280, 150, 280, 220]], [[100, 30, 180, 60]], [[300, 100]], [[]], [[5, 200, 30]]]
    drawn = annotate(picture(), result("polygons", polygons=polygons, labels=[""] * 5))
    marks = changed(drawn)
    assert marks[21:30, 40].any()
    assert marks[170, 250]
    assert drawn.getpixel((140, 45)) == rgb(COLOURS[1])  # two points are a line
    assert marks[100, 300]  # and one is a dot
    assert marks[200, 5]  # half a point is left out


def test_turned_quads_have_their_label_at_them() -> None:
    quad = [50, 200, 250, 80, 270, 110, 70, 230]
    marks = list(marks_of(result("quads", quads=[quad], labels=["slanted"])))
    (plate,) = arrange(marks, (320, 240), Fonts()).plates
    assert plate.spot.distance(Rectangle(250, 80, 251, 81)) < 10


def test_the_region_of_an_answer_about_one_is_drawn() -> None:
    about_a_region = result("text", text="white circle<loc_100><loc_200><loc_500><loc_600>")
    drawn = annotate(picture(), about_a_region)
    assert drawn.getpixel((32, 100)) == rgb(COLOURS[0])
    assert drawn.height == annotate(picture(), result("text", text="white circle")).height


@pytest.mark.parametrize(
    "text", ["\u0000\u0007\ud800", "a\tb\r\nc\u2028d", "👩\u200d🚀 🇰🇷 ❤️ 🐈", "e\u0301\u0301\u0301", "\u202eabc", " ", "\n", "<b>&amp;"]
)
def test_any_text_is_drawn_without_a_crash(text: str) -> None:
    boxes = result("boxes", boxes=[[10, 50, 90, 90], [100, 50, 190, 90]], labels=[text, text * 30])
    assert annotate(picture(), boxes).size == (320, 240)
    assert annotate(picture(), result("text", text=text * 20)).width == 320


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F"]


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_every_mode(mode: str) -> None:
    grey = Image.new("L", (320, 240), 128)
    source = (
        Image.fromarray(np.full((240, 320), 128 * 257, np.uint16))
        if mode == "I;16"
        else grey.convert("RGB").convert(mode)
        if mode not in ("I", "F")
        else grey.convert(mode)
    )
    drawn = annotate(source, result("boxes", boxes=[[50, 100, 200, 220]], labels=[""]))
    assert drawn.mode == "RGB"
    assert drawn.getpixel((50, 150)) == rgb(COLOURS[0])


def test_other_sizes_are_refused_with_both() -> None:
    with pytest.raises(InvalidImage, match="100 x 80 pixels, but the result is about one of 320 x 240: give") as caught:
        annotate(picture(100, 80), result("boxes"))
    assert caught.value.field == "image"
    with pytest.raises(InvalidImage, match="lies on its side"):
        annotate(picture(240, 320), result("boxes"))


def test_fonts_that_are_none_are_refused(tmp_path: Path) -> None:
    for font, said in ((tmp_path / "none.ttf", "no font file"), (Path(__file__), "no font with scalable letters"), (7, "got int")):
        with pytest.raises(InvalidOption, match=said) as caught:
            annotate(picture(), result("boxes"), font=font)  # pyright: ignore[reportArgumentType]
        assert caught.value.field == "font"


def test_a_loaded_font_keeps_its_size() -> None:
    font = ImageFont.truetype(str(OWN_FONT), 40)
    labels = arrange(list(marks_of(result("boxes", boxes=[[10, 100, 90, 200]], labels=["cat"]))), (320, 240), Fonts(font))
    assert labels.lettering.size == 40
    assert labels.plates[0].spot.bottom - labels.plates[0].spot.top > 40


def test_labels_of_nothing_have_no_plate() -> None:
    boxes = result("boxes", boxes=[[50, 100, 200, 220]] * 3, labels=[" \n", "\u200b\u0000", ""])
    drawn = annotate(picture(), boxes)
    assert np.array_equal(
        np.asarray(drawn), np.asarray(annotate(picture(), result("boxes", boxes=[[50, 100, 200, 220]] * 3, labels=[""] * 3)))
    )


def test_drawing_in_many_threads_gives_the_same_picture() -> None:
    boxes = result("boxes", boxes=[[10, 60, 90, 90], [100, 50, 190, 90]], labels=["Straße 고양이 日本", "δέντρο"], scores=[0.5])
    wanted = np.asarray(annotate(picture(), boxes))
    with ThreadPoolExecutor(8) as threads:
        for drawn in threads.map(lambda _: annotate(picture(), boxes), range(64)):
            assert np.array_equal(np.asarray(drawn), wanted)


def test_lines_and_letters_are_in_proportion_to_small_objects() -> None:
    size = (1600, 2300)
    lines = [[100, 60 + 40 * row, 700, 60 + 40 * row, 700, 86 + 40 * row, 100, 86 + 40 * row] for row in range(50)]
    document = list(marks_of(result("quads", size, quads=lines, labels=["Rechnung"] * 50)))
    large = list(marks_of(result("quads", size, quads=[[100, 100, 1500, 100, 1500, 2000, 100, 2000]], labels=["page"])))
    boxes = {name: [mark.box for mark in marks] for name, marks in (("lines", document), ("page", large))}
    assert pens_for(size, boxes["lines"]).line <= 3 < pens_for(size, boxes["page"]).line
    labels = arrange(document, size, Fonts())
    assert labels.lettering.size <= 26 < arrange(large, size, Fonts()).lettering.size
    assert len(labels.plates) == 50
