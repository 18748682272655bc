"""Drawing leaves the original alone, marks what was found where it was found, and writes texts below."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from florence2.draw import COLOURS, annotate
from florence2.results import Result

GREY = (128, 128, 128)


def picture(width: int = 320, height: int = 240) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def result(kind: str, **content) -> Result:
    return Result("<TASK>", kind, (320, 240), content.pop("text", ""), "", **content)  # type: ignore[arg-type]


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


@pytest.mark.parametrize("size", [(1, 1), (3000, 20), (20, 900)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    boxes = result("boxes", boxes=[[0, 0, *size], [-5, -5, 9999, 9999]], labels=["a long label for a small picture", "b"])
    assert annotate(Image.new("RGB", size), boxes).size == size
    assert annotate(Image.new("RGB", size), result("text", text="word")).width == size[0]


def test_labels_without_glyphs_do_no_harm() -> None:
    annotate(picture(), result("boxes", boxes=[[10, 10, 90, 90]], labels=["고양이 🐈 \x00\n"]))
