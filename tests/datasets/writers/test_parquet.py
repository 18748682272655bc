"""Parquet, read by pandas, by pyarrow, and by Hugging Face's ``datasets``."""

from __future__ import annotations

import sys

import pandas
import pytest
from pyarrow import parquet

from florence2.datasets.writers import FORMATS, WriteOptions, check_installed
from florence2.datasets.writers import parquet as writer
from florence2.errors import MissingExtra
from tests.datasets.writers.labelled_sets import CLASSES, labelled_set

write = FORMATS["parquet"]


def test_pandas_reads_it(empty, data, pictures):
    write(data, empty, WriteOptions())
    table = pandas.read_parquet(empty / "train.parquet")
    assert list(table["name"]) == [each.name for each in pictures[:3]]
    first = table.iloc[0]
    assert first["image"] == {"bytes": None, "path": str(pictures[0].file)}
    assert first["objects"][0]["label"] == "car"
    assert list(first["objects"][0]["box"]) == [8, 6, 40, 30]
    assert first["objects"][1]["text"] == 'STOP, = "x"'
    assert {each["prompt"]: each["text"] for each in first["texts"]}["<CAPTION>"] == "a car\nin the street"


@pytest.mark.parametrize("images", ["link", "copy"])
def test_datasets_opens_the_pictures(empty, data, images, load_dataset):
    write(data, empty, WriteOptions(images=images))
    found = load_dataset("parquet", data_dir=str(empty))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 3, "validation": 1}
    assert found["train"][0]["image"].size == (64, 48)
    assert found["train"][1]["objects"][0]["label"] == CLASSES[2]


@pytest.mark.parametrize(("images", "is_inside", "says"), [("link", True, "written anew, upright"), ("leave", False, "are turned by")])
def test_a_turned_picture_is_inside_unless_it_is_left(empty, make_picture, images, is_inside, says):
    picture = make_picture("a.jpg", form="JPEG", orientation=6)
    written = write(labelled_set([picture]), empty, WriteOptions(images=images))
    (image,) = pandas.read_parquet(empty / "train.parquet")["image"]
    assert (image["bytes"] is not None) == is_inside
    assert image["path"] == ("a.jpg" if is_inside else str(picture.file))
    assert says in written.notices[0]


def test_row_groups_are_bounded(empty, make_picture, monkeypatch):
    monkeypatch.setattr(writer, "GROUP_ROWS", 2)
    write(labelled_set([make_picture(f"{number}.png") for number in range(5)]), empty, WriteOptions())
    about = parquet.ParquetFile(empty / "train.parquet").metadata
    assert [about.row_group(index).num_rows for index in range(about.num_row_groups)] == [2, 2, 1]


def test_without_pyarrow_it_is_refused_before_anything_long_begins(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    check_installed(["coco", "yolo"])
    with pytest.raises(MissingExtra, match=r"florence2-engine\[parquet\]"):
        check_installed(["coco", "parquet"])
