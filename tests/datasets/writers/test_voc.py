"""Pascal VOC, read by supervision; and by the rules of torchvision's ``VOCDetection``, which would bring torch into this room."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np

from florence2.datasets.writers import FORMATS, WriteOptions
from tests.datasets.writers.labelled_sets import CLASSES, labelled_set, thing
from tests.datasets.writers.quiet_supervision import supervision

write = FORMATS["voc"]


def test_supervision_reads_it(empty, data):
    written = write(data, empty, WriteOptions())
    found = supervision.DetectionDataset.from_pascal_voc(str(empty / "JPEGImages"), str(empty / "Annotations"))
    boxes: dict[str, Any] = {path.rpartition("/")[2]: (annotations.xyxy, annotations.class_id) for path, _, annotations in found}
    xyxy, class_ids = boxes["street__one car.jpg"]
    assert [found.classes[index] for index in class_ids] == list(CLASSES[:2])
    np.testing.assert_allclose(xyxy, [[8, 6, 40, 30], [0, 0, 64, 48]])
    assert len(boxes) == 4
    assert any("outlines" in line for line in written.notices)
    assert any("texts" in line for line in written.notices)


def test_torchvision_finds_pictures_by_its_rules(empty, data):
    """``VOCDetection`` takes names from ``ImageSets/Main/train.txt``, stripped, and finds ``Annotations/NAME.xml`` for each."""
    write(data, empty, WriteOptions())
    for part, count in (("train", 3), ("val", 1)):
        names = [line.strip() for line in (empty / f"ImageSets/Main/{part}.txt").read_text("utf-8").splitlines()]
        assert len(names) == count
        for name in names:
            root = ElementTree.parse(empty / "Annotations" / f"{name}.xml").getroot()
            assert (empty / "JPEGImages" / (root.findtext("filename") or "")).is_file()


def test_jpeg_pictures_end_as_torchvision_expects(empty, make_picture):
    """``VOCDetection`` opens ``JPEGImages/NAME.jpg`` whatever ``filename`` says."""
    pictures = [make_picture(f"{name}", form="JPEG") for name in ("a.jpeg", "B.JPG", "c")]
    write(labelled_set(pictures), empty, WriteOptions())
    assert sorted(path.name for path in (empty / "JPEGImages").iterdir()) == ["B.jpg", "a.jpg", "c.jpg"]


def test_boxes_are_whole_pixels_within_the_picture(empty, make_picture):
    things = (thing(box=(0.2, 0.2, 0.4, 0.4)), thing(box=(63.6, 47.6, 64, 48)), thing(box=(8.4, 6.6, 40.4, 30.6), text="A <b>", score=0.5))
    write(labelled_set([make_picture(objects=things)]), empty, WriteOptions())
    root = ElementTree.parse(empty / "Annotations/a.xml").getroot()
    boxes = [[int(value.text or "") for value in box] for box in root.iter("bndbox")]
    assert boxes == [[1, 1, 1, 1], [64, 48, 64, 48], [9, 8, 40, 31]]
    assert [value.text for value in root.iter("value")] == ["A <b>", "0.500000"]


def test_pictures_that_are_left_are_named_by_their_paths(empty, data, pictures):
    write(data, empty, WriteOptions(images="leave"))
    root = ElementTree.parse(empty / "Annotations/-empty.xml").getroot()
    assert root.findtext("path") == str(pictures[2].file)
    assert list((empty / "JPEGImages").iterdir()) == []


def test_cvat_and_datumaro_know_the_classes_by_the_label_map(empty, make_picture):
    """Their rule: ``name:color:parts:actions``, one a line; a class that has a colon in its name can't be there."""
    written = write(labelled_set([make_picture()], ["car", "traffic light", "ratio 1:2"]), empty, WriteOptions())
    lines = (empty / "labelmap.txt").read_text("utf-8").splitlines()
    assert lines[1:] == ["car:::", "traffic light:::"]
    assert written.notices[0].startswith("1 classes can't be named in labelmap.txt")
