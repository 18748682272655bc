"""Answers as COCO has them, read by the real pycocotools."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from florence2.errors import InvalidOption
from florence2.results import Result
from florence2.sources import remember
from tests.interchange.answers import BOXES, LOCATED, OPEN_POLYGONS, REGIONS, SCORES, SIZE


def result(task: str = "<OD>", **more: Any) -> Result:
    return Result.from_dict({task: {**LOCATED[task], **more}}, SIZE)


def read(answers: dict[str, Any]) -> Any:
    """What pycocotools makes of a data set, which went through a file."""
    data: Any = COCO()
    data.dataset = json.loads(json.dumps(answers))
    data.createIndex()
    return data


def test_boxes_are_annotations_of_an_image() -> None:
    answers = result(scores=SCORES).to_coco()
    assert answers["images"] == [{"id": 1, "width": 100, "height": 80}]
    assert answers["categories"] == [
        {"id": 1, "name": "car", "supercategory": "none"},
        {"id": 2, "name": "traffic light", "supercategory": "none"},
    ]
    assert answers["annotations"][1] == {
        "id": 2,
        "image_id": 1,
        "category_id": 2,
        "bbox": [50, 5, 40, 30],
        "area": 1200,
        "segmentation": [],
        "iscrowd": 0,
        "score": 0.5,
    }
    assert "score" not in result().to_coco()["annotations"][0]
    data = read(answers)
    assert data.getAnnIds(catIds=data.getCatIds(catNms=["car"])) == [1, 3]


def test_ids_and_classes_are_those_of_the_user() -> None:
    answers = result().to_coco(image_id=42, annotation_id=7, classes={"Car": 3, "bus": 6, "automobile": 3})
    assert [(each["id"], each["image_id"], each["category_id"]) for each in answers["annotations"]] == [(7, 42, 3), (8, 42, 3)]
    assert {each["id"]: each["name"] for each in answers["categories"]} == {3: "Car", 6: "bus"}
    listed = result().to_coco(classes=["bus", "car"])
    assert [each["category_id"] for each in listed["annotations"]] == [2, 2]
    assert [each["name"] for each in listed["categories"]] == ["bus", "car"]


@pytest.mark.parametrize("ids", [{"image_id": "a"}, {"annotation_id": 1.5}, {"image_id": True}])
def test_ids_are_whole_numbers(ids: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption) as caught:
        result().to_coco(**ids)
    assert caught.value.field == next(iter(ids))


def test_outlines_have_their_area_and_masks() -> None:
    data = read(Result.from_dict(OPEN_POLYGONS, SIZE).to_coco())
    first, second = data.loadAnns([1, 2])
    assert (first["area"], first["bbox"]) == (900 + 100, [10, 10, 70, 60])
    for each in (first, second):
        assert mask.area(data.annToRLE(each)) == pytest.approx(each["area"], rel=0.05)


def test_corners_are_outlines_and_regions_without_a_label_are_objects() -> None:
    answers = result("<OCR_WITH_REGION>").to_coco()
    assert [len(each["segmentation"][0]) for each in answers["annotations"]] == [8, 8]
    assert answers["annotations"][0]["area"] == 300
    assert [each["name"] for each in answers["categories"]] == ["STOP", "고양이"]
    assert [each["name"] for each in result("<REGION_PROPOSAL>").to_coco()["categories"]] == ["object"]


def test_an_outline_without_an_area_is_none() -> None:
    one = Result.from_dict({"<REGION_TO_SEGMENTATION>": {"polygons": [[[1, 2, 3, 4]]], "labels": [""]}}, SIZE)
    (annotation,) = one.to_coco()["annotations"]
    assert (annotation["segmentation"], annotation["bbox"], annotation["area"]) == ([], [1, 2, 2, 2], 4)


def test_texts_are_captions_and_named_regions_objects() -> None:
    answers = Result.from_dict({"<CAPTION>": "a car"}, SIZE).to_coco(image_id=5)
    assert answers == {"images": [{"id": 5, "width": 100, "height": 80}], "annotations": [{"id": 1, "image_id": 5, "caption": "a car"}]}
    assert read(answers).loadRes(copy.deepcopy(answers["annotations"])).loadAnns(1)[0]["caption"] == "a car"
    (region,) = Result.from_dict({"<REGION_TO_CATEGORY>": REGIONS["<REGION_TO_CATEGORY>"]}, SIZE).to_coco()["annotations"]
    assert region["bbox"] == pytest.approx([10.05, 20.04, 30, 40])
    assert Result.from_dict({"<REGION_TO_CATEGORY>": "No object detected."}, SIZE).to_coco()["annotations"] == []


def test_an_image_has_the_name_of_its_file(tmp_path: Path) -> None:
    Image.new("RGB", SIZE).save(path := tmp_path / "사진.png")
    asked = Result("<OD>", "boxes", SIZE, "", "", boxes=BOXES[:1], labels=["car"], _source=remember(path))
    assert asked.to_coco()["images"][0]["file_name"] == "사진.png"


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_annotations_are_results_that_are_scored_against_a_data_set(kind: Literal["bbox", "segm"]) -> None:
    """Two images, each answered without a mistake: pycocotools finds no other precision than 1."""
    classes = {"car": 3, "traffic light": 9, "cat": 4}
    task = {"bbox": result(scores=SCORES), "segm": Result.from_dict(OPEN_POLYGONS, SIZE)}[kind]
    images, truth, found = [], [], []
    for number in (10, 20):
        answers = task.to_coco(number, len(truth) + 1, classes=classes)
        images += answers["images"]
        truth += answers["annotations"]
        found += [{"score": 0.5, **each} for each in copy.deepcopy(answers["annotations"])]
    data = read({"images": images, "annotations": truth, "categories": task.to_coco(classes=classes)["categories"]})
    scored = COCOeval(data, data.loadRes(found), kind)
    scored.evaluate()
    scored.accumulate()
    precision = np.asarray(scored.eval["precision"])[..., 0, -1]  # objects of any area, as many as there are
    assert precision[precision > -1].min() == pytest.approx(1.0)
