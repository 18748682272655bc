"""Label Studio's tasks, by the rules of its documentation on predictions and on local files; Label Studio itself is a server."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest

from florence2.datasets.writers import FORMATS, WriteOptions
from tests.datasets.writers.labelled_sets import CLASSES

write = FORMATS["label-studio"]


@pytest.fixture
def tasks(empty, data):
    write(data, empty, WriteOptions())
    return json.loads((empty / "tasks.json").read_text("utf-8"))


def test_each_result_goes_to_a_control_of_its_type(empty, tasks):
    """A result's ``from_name`` is the name of a control of the result's type, its ``to_name`` that of the picture."""
    root = ElementTree.parse(empty / "labelling.xml").getroot()
    controls = {each.get("name"): each.tag.lower() for each in root.iter() if each.get("toName") == "image"}
    results = [result for task in tasks for result in task["predictions"][0]["result"]]
    assert all(controls[result["from_name"]] == result["type"] and result["to_name"] == "image" for result in results)
    assert [each.get("value") for each in root.iter("Label")] == [*CLASSES, *CLASSES]
    assert {each.get("value") for each in root.iter("Header")} == {"<CAPTION>", "<MORE_DETAILED_CAPTION>"}


def test_coordinates_are_percents(tasks):
    box, other, text, *answers = tasks[0]["predictions"][0]["result"]
    assert box["value"] == {"x": 12.5, "y": 12.5, "rotation": 0, "width": 50.0, "height": 50.0, "rectanglelabels": ["car"]}
    assert (box["original_width"], box["original_height"], box["score"]) == (64, 48, 0.75)
    assert text["id"] == other["id"] != box["id"]
    assert text["value"]["text"] == ['STOP, = "x"']
    assert [each["value"]["text"] for each in answers] == [["a car\nin the street"], ["=a red car, <b>"]]
    outline, hole = tasks[1]["predictions"][0]["result"]
    assert outline["value"]["points"][0] == [15.625, 20.8333]
    assert outline["id"] != hole["id"]


def test_local_files_are_served_by_their_addresses(empty, tasks):
    """Label Studio serves ``/data/local-files/?d=PATH`` with PATH below ``LOCAL_FILES_DOCUMENT_ROOT``, which is this folder."""
    for task in tasks:
        address = urlsplit(task["data"]["image"])
        assert address.path == "/data/local-files/"
        assert (empty / parse_qs(address.query, strict_parsing=True)["d"][0]).is_file()


def test_pictures_that_are_left_are_addressed_from_the_root_of_the_disk(empty, data, pictures):
    write(data, empty, WriteOptions(images="leave"))
    task = json.loads((empty / "tasks.json").read_text("utf-8"))[2]
    assert "/" + parse_qs(urlsplit(task["data"]["image"]).query)["d"][0] == str(pictures[2].file)
