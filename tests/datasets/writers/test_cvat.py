"""CVAT for images 1.1, by the rules that CVAT's importer states; CVAT is a server, and datumaro too large to be installed for tests."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from florence2.datasets.writers import FORMATS, WriteOptions
from tests.datasets.writers.labelled_sets import CLASSES

write = FORMATS["cvat"]


def test_the_importer_s_rules_hold(empty, data):
    """CVAT finds an image by its name below the task, a label by its name; a shape's attributes are those that the label has.

    Boxes are ``xtl, ytl, xbr, ybr``, points ``x,y;x,y``, and an element that is no label of the task is refused.
    """
    write(data, empty, WriteOptions())
    root = ElementTree.parse(empty / "annotations.xml").getroot()
    labels = {label.findtext("name"): {each.findtext("name") for each in label.iter("attribute")} for label in root.iter("label")}
    assert list(labels) == [*CLASSES, "caption"]
    assert [int(image.get("id", "")) for image in root.iter("image")] == [0, 1, 2, 3]
    for image in root.iter("image"):
        assert (empty / "images" / image.get("name", "")).is_file()
        for shape in image:
            assert {each.get("name") for each in shape} <= labels[shape.get("label")]


def test_boxes_outlines_and_texts(empty, data):
    write(data, empty, WriteOptions())
    first, second, *_ = ElementTree.parse(empty / "annotations.xml").getroot().iter("image")
    box, read, *tags = first
    assert [float(box.get(side, "")) for side in ("xtl", "ytl", "xbr", "ybr")] == [8, 6, 40, 30]
    assert {each.get("name"): each.text for each in box} == {"score": "0.750000"}
    assert {each.get("name"): each.text for each in read} == {"text": 'STOP, = "x"'}
    assert [tag.findtext("attribute") for tag in tags] == ["a car\nin the street", "=a red car, <b>"]
    outline, hole = second
    assert outline.get("points") == "10.0,10.0;30.0,10.0;30.0,30.0;10.0,30.0"
    assert outline.get("group_id") == hole.get("group_id") == "1"


def test_the_editor_of_labels_takes_what_stands_beside(empty, data):
    """CVAT's raw editor: a list of objects with name, type and attributes, each of these with the five fields of an attribute."""
    write(data, empty, WriteOptions(segments=False))
    labels = json.loads((empty / "labels.json").read_text("utf-8"))
    assert [each["name"] for each in labels] == [*CLASSES, "caption"]
    fields = {"name", "mutable", "input_type", "default_value", "values"}
    assert all(set(attribute) == fields for each in labels for attribute in each["attributes"])
    assert ElementTree.parse(empty / "annotations.xml").getroot().find(".//polygon") is None
