"""COCO files, read by the libraries that people give them to."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO as FASTER_COCO
from pycocotools.coco import COCO

from florence2.datasets.reader import read_dataset
from florence2.datasets.writers import FORMATS, WriteOptions
from tests.datasets.writers.labelled_sets import CLASSES, labelled_set, thing
from tests.datasets.writers.quiet_supervision import supervision

write = FORMATS["coco"]


@pytest.fixture
def folder(empty, data):
    write(data, empty, WriteOptions())
    return empty


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools decodes masks so
@pytest.mark.parametrize("reader", [COCO, FASTER_COCO])
def test_pycocotools_reads_boxes_and_outlines(folder, reader, capsys):
    coco = reader(str(folder / "train/_annotations.coco.json"))
    assert coco.getImgIds() == [1, 2, 3]
    assert [coco.cats[key]["name"] for key in sorted(coco.cats)] == list(CLASSES)
    assert [coco.anns[key]["bbox"] for key in sorted(coco.anns)] == [[8, 6, 32, 24], [0, 0, 64, 48], [10, 10, 40, 20]]
    assert coco.anns[1]["score"] == 0.75
    assert coco.anns[2]["text"] == 'STOP, = "x"'
    assert coco.anns[3]["area"] == 20 * 20 + 10 * 10 / 2
    assert abs(int(coco.annToMask(coco.anns[3]).sum()) - 450) < 20


def test_our_own_training_reads_both_parts(folder):
    for is_training, boxes in ((True, [2, 1, 0]), (False, [1])):
        found = read_dataset(str(folder), for_training=is_training)
        assert not found.problems
        assert [len(record.truth.boxes) for record in found.records] == boxes


def test_supervision_reads_it(folder):
    found = supervision.DetectionDataset.from_coco(str(folder / "train"), str(folder / "train/_annotations.coco.json"), force_masks=False)
    by_name = {path.rpartition("/train/")[2]: annotations for path, _, annotations in found}
    assert found.classes == list(CLASSES)
    np.testing.assert_allclose(by_name["street/one car.jpg"].xyxy, [[8, 6, 40, 30], [0, 0, 64, 48]])
    assert len(by_name["-empty.png"]) == 0


def test_texts_are_a_captions_file_that_pycocotools_reads(folder, capsys):
    captions: Any = COCO(str(folder / "train/_captions.coco.json"))
    assert [each["caption"] for each in captions.imgToAnns[1]] == ["a car\nin the street", "=a red car, <b>"]
    assert captions.imgToAnns[2] == []


def test_fiftyone_s_documented_rules_hold(folder):
    """FiftyOne's COCO importer takes images by ``file_name`` below its data path, boxes by ``bbox``, and every further key as attribute.

    Its documented rules, not the package: ids are unique whole numbers, each annotation's image and category are there.
    """
    content = json.loads((folder / "train/_annotations.coco.json").read_text("utf-8"))
    images, categories = ({each["id"] for each in content[part]} for part in ("images", "categories"))
    assert all((folder / "train" / each["file_name"]).is_file() for each in content["images"])
    assert len({each["id"] for each in content["annotations"]}) == len(content["annotations"]) == 3
    assert all(each["image_id"] in images and each["category_id"] in categories for each in content["annotations"])


def test_scores_and_outlines_may_be_left_out(empty, data):
    written = write(data, empty, WriteOptions(scores=False, segments=False))
    annotations = json.loads((empty / "train/_annotations.coco.json").read_text("utf-8"))["annotations"]
    assert all("score" not in each and each["segmentation"] == [] for each in annotations)
    assert [each["area"] for each in annotations] == [32 * 24, 64 * 48, 40 * 20]
    assert (written.num_pictures, written.num_objects) == (4, 4)


def test_what_can_not_be_written_is_left_out_and_counted(empty, make_picture):
    things = (thing(), thing("bus"), thing(""), thing(box=(5, 5, 5, 9)), thing(box=(70, 5, 80, 9)), thing(box=(float("nan"), 0, 5, 5)))
    written = write(labelled_set([make_picture(objects=things)], ["car", ""]), empty, WriteOptions())
    assert written.num_objects == 1
    assert written.notices == (
        "2 objects without the name of a class were left out: a.png, …",
        "3 objects without an area were left out: a.png, …",
    )
