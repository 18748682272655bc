"""Answers as ``supervision.Detections``: what the real package makes of them, and that it reads our dictionaries the same."""

from __future__ import annotations

import sys
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from florence2.client.answers import Answer, typed
from florence2.errors import InvalidOption, MissingExtra
from florence2.interchange.detections import masks_of
from florence2.results import Result
from tests.datasets.writers.quiet_supervision import supervision
from tests.interchange.answers import BOXES, LABELS, LOCATED, OPEN_POLYGONS, POLYGONS, QUADS, REGIONS, SCORES, SIZE


def od(**more: Any) -> Result:
    return Result("<OD>", "boxes", SIZE, "", "", **{"boxes": BOXES, "labels": LABELS, **more})


def detections(result: Result, classes: Any = None, **more: Any) -> Any:
    """What users get; the types of supervision allow for fields that are None."""
    return result.to_supervision(classes, **more)


def test_boxes_have_classes_and_confidences() -> None:
    found = detections(od(scores=SCORES))
    assert type(found).__module__.startswith("supervision")
    assert (found.xyxy.dtype, found.xyxy.tolist()) == (np.float32, BOXES)
    assert found.class_id.tolist() == [0, 1, 0]
    assert found.confidence.tolist() == SCORES
    assert found["class_name"].tolist() == LABELS
    assert found.mask is None
    assert detections(od()).confidence is None


@pytest.mark.parametrize("classes", [["Traffic  Light", "bus", "CAR"], {"CAR": 2, "Traffic  Light": 0, "vehicle": 2}])
def test_classes_of_the_user_have_their_numbers_and_names(classes: Any) -> None:
    found = detections(od(boxes=[*BOXES, [1, 1, 2, 2]], labels=[*LABELS, "person"]), classes)
    assert found.class_id.tolist() == [2, 0, 2]
    assert found["class_name"].tolist() == ["CAR", "Traffic  Light", "CAR"]
    assert found.xyxy.tolist() == BOXES
    assert detections(od(), ["person"]).is_empty()


def test_a_single_class_is_that_of_objects_without_a_label() -> None:
    outlines = Result.from_dict({"<REGION_TO_SEGMENTATION>": LOCATED["<REGION_TO_SEGMENTATION>"]}, SIZE)
    assert detections(outlines, {"cat": 7}).class_id.tolist() == [7, 7]
    assert detections(outlines, ["cat", "object"])["class_name"].tolist() == ["object", "object"]
    assert len(detections(outlines, ["cat", "dog"])) == 0
    assert detections(outlines)["class_name"].tolist() == ["object", "object"]


@pytest.mark.parametrize("classes", ["car", [1], {"car": "x"}, {0: "car"}, {"car": 1, "Car": 2}, ["a", "b", "A"], 7, {"car": True}])
def test_other_classes_are_refused(classes: Any) -> None:
    with pytest.raises(InvalidOption) as caught:
        detections(od(), classes)
    assert caught.value.field == "classes"


def test_outlines_become_masks_of_the_picture() -> None:
    found = detections(Result.from_dict(OPEN_POLYGONS, SIZE))
    assert (found.mask.dtype, found.mask.shape) == (bool, (2, 80, 100))
    first, second = found.mask
    assert first[10:41, 10:41].all()
    assert first[62, 75]  # the second outline of the same object
    assert not first[45:58].any()
    assert not second[:, :49].any()
    assert found.area.tolist() == [int(mask.sum()) for mask in found.mask]
    assert found["class_name"].tolist() == ["car", "cat"]


def test_an_outline_within_another_does_not_cut_it() -> None:
    (mask,) = masks_of([((10, 10, 60, 10, 60, 60, 10, 60), (20, 20, 30, 20, 30, 30, 20, 30), (1, 1, 2, 2))], SIZE)
    assert mask[10:61, 10:61].all()
    assert mask.sum() == 51 * 51


def test_corners_are_kept_for_oriented_boxes() -> None:
    found = detections(Result.from_dict({"<OCR_WITH_REGION>": LOCATED["<OCR_WITH_REGION>"]}, SIZE))
    assert found["xyxyxyxy"].reshape(2, 8).tolist() == QUADS
    assert found.xyxy.tolist() == [[10, 10, 40, 22], [50, 50, 90, 60]]
    canvas = supervision.OrientedBoxAnnotator().annotate(Image.new("RGB", SIZE), found)
    assert np.asarray(canvas).any()


def test_a_region_is_one_detection_with_its_name() -> None:
    found = detections(Result.from_dict({"<REGION_TO_CATEGORY>": REGIONS["<REGION_TO_CATEGORY>"]}, SIZE))
    assert found["class_name"].tolist() == ["white circle"]
    assert found.xyxy.tolist() == pytest.approx(np.array([[10.05, 20.04, 40.05, 60.04]]), abs=0.01)
    assert detections(Result.from_dict({"<REGION_TO_CATEGORY>": "No object detected."}, SIZE)).is_empty()


@pytest.mark.parametrize("task", LOCATED)
def test_empty_answers_can_be_merged_with_others(task: str) -> None:
    nothing = {key: [] for key in LOCATED[task]}
    found = detections(Result.from_dict({task: nothing}, SIZE))
    assert found.is_empty()
    assert found["class_name"].shape == (0,)
    assert len(supervision.Detections.merge([found, detections(od())])) == 3


@pytest.mark.parametrize("task", ["<CAPTION>", "<OCR>", "a free prompt"])
def test_texts_are_no_detections(task: str) -> None:
    with pytest.raises(InvalidOption, match=r"is a text and has no detections: read result\.text"):
        detections(Result.from_dict({task: "a car"}, SIZE))


def test_coordinates_may_be_unrounded() -> None:
    whole = od(boxes=[BOXES[0]], labels=["car"], bins=[[100, 250, 400, 750]])
    assert detections(whole).xyxy.tolist() == [BOXES[0]]
    assert detections(whole, coordinates="float").xyxy[0].tolist() == pytest.approx([10.05, 20.04, 40.05, 60.04])
    with pytest.raises(InvalidOption, match="whole coordinates only"):
        detections(od(), coordinates="float")


def test_corners_in_the_wrong_order_make_a_box() -> None:
    assert detections(od(boxes=[[40, 60, 10, 20]], labels=["car"])).xyxy.tolist() == [[10, 20, 40, 60]]


def test_answers_of_servers_have_the_same() -> None:
    answer = {"image": {"width": 100, "height": 80}, "response": {"<OD>": {**LOCATED["<OD>"], "scores": SCORES}}}
    wanted = detections(od(scores=SCORES))
    assert detections(cast(Answer, typed(answer))) == wanted
    assert detections(Result.from_dict(answer)) == wanted


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtra, match=r"^Result\.to_supervision needs the package supervision, .*: pip install supervision$"):
        detections(od())


@pytest.mark.parametrize("scores", [None, True])
@pytest.mark.parametrize("task", [*LOCATED, *REGIONS])
def test_supervision_reads_our_dictionaries_as_we_do(task: str, scores: bool | None) -> None:
    """With the scores inside of the answer as without: its own reading has neither confidences nor ids of classes."""
    result = Result.from_dict({task: LOCATED.get(task) or REGIONS[task]}, SIZE)
    if scores and result.kind != "text":
        result = Result.from_dict({task: {**LOCATED[task], "scores": [0.5] * len(result.labels)}}, SIZE)
    theirs: Any = supervision.Detections.from_vlm(supervision.VLM.FLORENCE_2, result=result.to_dict(), resolution_wh=SIZE)
    ours = detections(result)
    assert np.allclose(ours.xyxy, theirs.xyxy, atol=0.06)  # a region's locations are the edges of their bins there, the middles here
    for name, values in theirs.data.items():
        assert np.array_equal(ours[name], values)
    assert (ours.mask is None) == (theirs.mask is None)
    if ours.mask is not None:
        shared, either = ((ours.mask & theirs.mask).sum(axis=(1, 2)), (ours.mask | theirs.mask).sum(axis=(1, 2)))
        assert (shared / either > 0.97).all()
    assert len(ours) == {"<OCR_WITH_REGION>": 2}.get(task, 1 if task in REGIONS else len(POLYGONS) if ours.mask is not None else 3)
