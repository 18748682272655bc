"""The result's dictionary, copies, words and refusals."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest

from florence2.errors import InvalidOption
from florence2.results import FoundObject, Result, Usage

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


def test_what_it_took_is_no_part_of_the_answer() -> None:
    first, second = (replace(BOXES, usage=Usage(580, 577, 9, is_image_cached=is_cached)) for is_cached in (False, True))
    assert first == second == BOXES
    assert first != replace(first, log_probabilities=[-1.0])
    assert repr(first) == repr(BOXES)
    assert first.to_dict() == BOXES.to_dict()
    travelled = pickle.loads(pickle.dumps(replace(first, log_probabilities=[-1.0])))
    assert (travelled.usage, travelled.log_probabilities) == (first.usage, [-1.0])
    assert copy.deepcopy(second).usage == second.usage


def test_the_dictionary_is_a_copy() -> None:
    answer = BOXES.to_dict()["<OD>"]
    answer["bboxes"][0][0] = answer["labels"][0] = answer["scores"][0] = 99
    assert BOXES.to_dict()["<OD>"] == {"bboxes": [[0, 0, 319, 479]], "labels": ["cat"], "scores": [0.5]}


def test_scores_that_were_not_asked_for_are_refused() -> None:
    with pytest.raises(InvalidOption, match="scores=True"):
        POLYGONS.to_dict(scores=True)
    with pytest.raises(InvalidOption, match="'int' or 'float'"):
        BOXES.to_dict(coordinates="relative")  # pyright: ignore[reportArgumentType]


def test_objects_are_boxes_with_their_labels_and_scores() -> None:
    (found,) = replace(BOXES, label_scores=[0.75], location_scores=[0.25]).objects
    assert found == FoundObject("cat", (0, 0, 319, 479), score=0.5, label_score=0.75, location_score=0.25)
    assert (found.kind, found.quad, found.polygons) == ("box", None, ())
    assert found.outlines == ((0, 0, 319, 0, 319, 479, 0, 479),)


def test_objects_of_quads_and_polygons_have_the_box_around_them() -> None:
    corners = (4, 1, 9, 2, 8, 6, 3, 5)
    (quad,) = Result("<OCR_WITH_REGION>", "quads", SIZE, "", "", quads=[list(corners)], labels=["STOP"]).objects
    assert (quad.kind, quad.label, quad.box, quad.quad, quad.outlines) == ("quad", "STOP", (3, 1, 9, 6), corners, (corners,))
    outlines = [[5, 6, 9, 6, 7, 8], [], [1, 2, 3, 2, 3, 4]]
    for kind in ("polygons", "boxes_or_polygons"):
        (found,) = Result("<REGION_TO_SEGMENTATION>", kind, SIZE, "", "", polygons=[outlines], labels=[""]).objects
        assert (found.kind, found.label, found.box, found.quad, found.score) == ("polygons", "", (1, 2, 9, 8), None, None)
        assert found.outlines == found.polygons == tuple(map(tuple, outlines))


def test_an_object_with_the_middles_of_its_bins() -> None:
    (box,) = BOXES.objects[:1]
    assert list(box.unrounded(BOXES.bins[0], SIZE).box) == BOXES.to_dict(coordinates="float")["<OD>"]["bboxes"][0]
    quad = FoundObject("STOP", (0, 0, 9, 9), (0, 0, 9, 0, 9, 9, 0, 9), score=0.5).unrounded([1, 2, 30, 2, 30, 40, 0, 41], (1000, 500))
    assert quad == FoundObject("STOP", (0.5, 1.25, 30.5, 20.75), (1.5, 1.25, 30.5, 1.25, 30.5, 20.25, 0.5, 20.75), score=0.5)
    polygons = FoundObject("", (0, 0, 9, 9), polygons=((0, 0, 9, 0, 9, 9), (1, 1))).unrounded([[1, 2, 30, 2, 30, 40], [0, 41]], (1000, 500))
    assert polygons == FoundObject("", (0.5, 1.25, 30.5, 20.75), polygons=((1.5, 1.25, 30.5, 1.25, 30.5, 20.25), (0.5, 20.75)))


def test_a_text_has_no_objects() -> None:
    assert Result("<REGION_TO_CATEGORY>", "text", SIZE, "cat<loc_1><loc_2><loc_3><loc_4>", "").objects == ()


def test_objects_follow_the_lists() -> None:
    result = copy.deepcopy(BOXES)
    result.labels[0] = "dog"
    result.boxes.append([1, 2, 3, 4])  # without a label and a score
    assert [(found.label, found.box, found.score) for found in result.objects] == [("dog", (0, 0, 319, 479), 0.5), ("", (1, 2, 3, 4), None)]
    result.labels.append("no box")
    result.labels.append("no box either")
    assert [found.label for found in result.objects] == ["dog", "no box"]


def test_objects_of_a_dictionary() -> None:
    answer = {"<OD>": {"bboxes": [[0.5, 1.5, 2.0, 3.0]], "labels": ["cat"], "scores": [0.25]}}
    assert Result.from_dict(answer, SIZE).objects == (FoundObject("cat", (0.5, 1.5, 2.0, 3.0), score=0.25),)
    nameless = {"<OD>": {"bboxes": [[0, 1, 2, 3]], "labels": [None]}}
    assert Result.from_dict(nameless, SIZE).objects == (FoundObject("", (0, 1, 2, 3)),)


def test_an_object_without_a_point_is_none() -> None:
    polygons = [[[]], [[1]], [], [[], [1, 2]]]
    result = Result("<REGION_TO_SEGMENTATION>", "polygons", SIZE, "", "", polygons=polygons, labels=["a", "b", "c", "d"])
    assert [(found.label, found.box) for found in result.objects] == [("d", (1, 2, 1, 2))]


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
