"""The result's dictionary, copies, words and refusals."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from florence2.errors import InvalidOption
from florence2.results import Result

SIZE = (640, 480)
BOXES = Result(
    task="<OD>",
    kind="boxes",
    image_size=SIZE,
    text="cat<loc_0><loc_0><loc_499><loc_999>",
    raw="<s>cat<loc_0><loc_0><loc_499><loc_999></s>",
    boxes=[[0, 0, 319, 479]],
    labels=["cat"],
    bins=[[0, 0, 499, 999]],
    scores=[0.5],
)
POLYGONS = Result(
    task="<REGION_TO_SEGMENTATION>",
    kind="polygons",
    image_size=SIZE,
    text="",
    raw="",
    polygons=[[[0, 0, 319, 479], []]],
    labels=[""],
    bins=[[[0, 0, 499, 999], []]],
)


def test_boxes() -> None:
    assert BOXES.to_dict() == {"<OD>": {"bboxes": [[0, 0, 319, 479]], "labels": ["cat"], "scores": [0.5]}}
    assert BOXES.to_dict(scores=True) == BOXES.to_dict()
    assert BOXES.to_dict(scores=False) == {"<OD>": {"bboxes": [[0, 0, 319, 479]], "labels": ["cat"]}}


def test_unrounded_coordinates_are_the_middles_of_bins() -> None:
    assert BOXES.to_dict(coordinates="float")["<OD>"]["bboxes"] == [pytest.approx([0.32, 0.24, 319.68, 479.76])]
    polygons = POLYGONS.to_dict(coordinates="float")["<REGION_TO_SEGMENTATION>"]["polygons"]
    assert polygons == [[pytest.approx([0.32, 0.24, 319.68, 479.76]), []]]


def test_coordinates_that_are_not_known_unrounded_are_refused() -> None:
    whole = Result.from_dict(BOXES.to_dict(), SIZE)
    more = replace(BOXES, boxes=[[0, 0, 319, 479], [5, 5, 9, 9]], labels=["cat", "dog"])  # as one does who corrects an answer
    for result in (whole, more):
        with pytest.raises(InvalidOption, match="whole coordinates only") as caught:
            result.to_dict(coordinates="float")
        assert caught.value.field == "coordinates"
    exact = {"<OD>": {"bboxes": [[0.32, 0.24, 319.68, 479.76]], "labels": ["cat"]}}
    assert Result.from_dict(exact, SIZE).to_dict(coordinates="float") == exact
    assert replace(BOXES, boxes=[], labels=[], scores=[]).to_dict(coordinates="float")["<OD>"]["bboxes"] == []
    nothing = {"<OD>": {"bboxes": [], "labels": []}}
    assert Result.from_dict(nothing, SIZE).to_dict(coordinates="float") == nothing


def test_quads() -> None:
    corners = [0, 0, 1, 0, 1, 1, 0, 1]
    result = Result("<OCR_WITH_REGION>", "quads", SIZE, "", "", quads=[corners], labels=["STOP"])
    assert result.to_dict() == {"<OCR_WITH_REGION>": {"quad_boxes": [corners], "labels": ["STOP"]}}


def test_text() -> None:
    result = Result("<CAPTION>", "text", SIZE, "a cat", "<s>a cat</s>")
    assert result.to_dict() == result.to_dict(coordinates="float") == result.to_dict(scores=True) == {"<CAPTION>": "a cat"}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            {"boxes": [[0, 0, 1, 1]], "labels": ["a"]},
            {"bboxes": [[0, 0, 1, 1]], "bboxes_labels": ["a"], "polygons": [], "polygons_labels": []},
        ),
        ({"polygons": [[[0, 0]]], "labels": ["a"]}, {"bboxes": [], "bboxes_labels": [], "polygons": [[[0, 0]]], "polygons_labels": ["a"]}),
        ({}, {"bboxes": [], "bboxes_labels": [], "polygons": [], "polygons_labels": []}),
    ],
)
def test_boxes_or_polygons(found: dict, expected: dict) -> None:
    assert Result("<OPEN_VOCABULARY_DETECTION>", "boxes_or_polygons", SIZE, "", "", **found).to_dict() == {
        "<OPEN_VOCABULARY_DETECTION>": expected
    }


def test_the_dictionary_is_a_copy() -> None:
    answer = BOXES.to_dict()["<OD>"]
    answer["bboxes"][0][0] = answer["labels"][0] = answer["scores"][0] = 99
    assert BOXES.to_dict()["<OD>"] == {"bboxes": [[0, 0, 319, 479]], "labels": ["cat"], "scores": [0.5]}


def test_scores_that_were_not_asked_for_are_refused() -> None:
    with pytest.raises(InvalidOption, match="scores=True"):
        POLYGONS.to_dict(scores=True)
    with pytest.raises(InvalidOption, match="'int' or 'float'"):
        BOXES.to_dict(coordinates="relative")  # pyright: ignore[reportArgumentType]


def test_results_are_values() -> None:
    assert pickle.loads(pickle.dumps(BOXES)) == BOXES != POLYGONS


def test_words_are_short() -> None:
    assert repr(BOXES) == "<Result <OD> 1 boxes: 'cat' (stop)>"
    assert repr(POLYGONS) == "<Result <REGION_TO_SEGMENTATION> 1 polygons: '' (stop)>"
    assert (
        repr(Result("<OPEN_VOCABULARY_DETECTION>", "boxes_or_polygons", SIZE, "", ""))
        == "<Result <OPEN_VOCABULARY_DETECTION> 0 boxes:  (stop)>"
    )
    assert len(repr(Result("<CAPTION>", "text", SIZE, "word " * 1000, "", finish_reason="length"))) < 100
