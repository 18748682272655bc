"""YOLO data sets, read by supervision; and by the rules of ultralytics, which is too large to be installed for tests."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from florence2.datasets.reader import read_dataset
from florence2.datasets.writers import FORMATS, WriteOptions
from florence2.datasets.writers.yaml_text import quoted
from tests.datasets.writers.labelled_sets import CLASSES, contents, labelled_set, thing
from tests.datasets.writers.quiet_supervision import supervision

write = FORMATS["yolo"]


def read(folder, split="train", **more):
    return supervision.DetectionDataset.from_yolo(
        str(folder / "images" / split), str(folder / "labels" / split), str(folder / "data.yaml"), **more
    )


def test_supervision_reads_boxes(empty, data):
    written = write(data, empty, WriteOptions())
    found = read(empty)
    boxes = {path.rpartition("/")[2]: annotations.xyxy.round(2).tolist() for path, _, annotations in found}
    assert found.classes == list(CLASSES)
    assert boxes == {
        "street__one car.jpg": [[8, 6, 40, 30], [0, 0, 64, 48]],
        next(name for name in boxes if name.startswith("street__g")): [[10, 10, 50, 30]],
        "-empty.png": [],
    }
    assert len(read(empty, "val")) == 1
    assert any(line.startswith("2 outlines were left out, because not every object has one") for line in written.notices)


def test_supervision_reads_outlines(empty, outlined):
    write(outlined, empty, WriteOptions())
    masks: Any = {path.rpartition("/")[2]: annotations.mask for path, _, annotations in read(empty, force_masks=True)}
    two = next(mask for name, mask in masks.items() if name.startswith("street__g"))
    assert len(two) == 1
    assert (
        abs(int(two[0].sum()) - 450) < 80
    )  # supervision draws an outline's edge as well; both outlines of the object, and nothing between them


@pytest.mark.parametrize("segments", [None, True, False])
def test_a_set_holds_one_kind_of_line(empty, data, segments):
    """Ultralytics 8.4 refuses a file with lines of five numbers and of more, and drops the outlines of a set that mixes both."""
    write(data, empty, WriteOptions(segments=segments))
    lines = [line.split() for path in empty.glob("labels/*/*.txt") for line in path.read_text().splitlines()]
    assert {len(line) > 6 for line in lines} == {segments is True}
    assert all(0 <= float(value) <= 1 for line in lines for value in line[1:])
    assert all(len(line) == 5 or len(line) % 2 for line in lines)


def test_ultralytics_finds_labels_by_its_rules(empty, data):
    """Ultralytics replaces the last ``/images/`` of a picture's path by ``/labels/``, and needs ``train``, ``val`` and ``names``."""
    write(data, empty, WriteOptions())
    about = yaml.safe_load((empty / "data.yaml").read_text("utf-8"))
    assert about["names"] == dict(enumerate(CLASSES))
    for split in ("train", "val"):
        for image in (empty / about[split]).glob("**/*.*"):
            assert (empty / "labels" / split / image.with_suffix(".txt").name).is_file()


def test_where_nothing_is_held_out_val_is_train(empty, make_picture):
    write(labelled_set([make_picture(objects=(thing(),))]), empty, WriteOptions())
    assert yaml.safe_load((empty / "data.yaml").read_text("utf-8"))["val"] == "images/train"
    assert sorted(contents(empty)) == ["data.yaml", "images/train/a.png", "labels/train/a.txt"]


@given(st.text())
def test_yaml_reads_any_text_as_it_was(text):
    assert yaml.safe_load(f"names:\n  0: {quoted(text)}\n") == {"names": {0: text}}


@pytest.mark.parametrize("segments", [None, True])
def test_our_own_training_reads_both_parts(empty, data, segments):
    write(data, empty, WriteOptions(segments=segments))
    for is_training, boxes in ((True, [0, 1, 2]), (False, [1])):
        found = read_dataset(str(empty), for_training=is_training)
        assert not found.problems
        assert sorted(len(record.truth.boxes) for record in found.records) == boxes
