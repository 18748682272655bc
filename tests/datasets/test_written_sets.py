"""What the writers of data sets write, the readers read: the same objects of the same pictures, in training and in evaluation."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florence2.datasets.boxes import write_boxes
from florence2.datasets.labelled import LabelledPicture, Split
from florence2.datasets.reader import read_dataset
from florence2.datasets.record import Record
from florence2.datasets.writers import FORMATS, WriteOptions
from florence2.errors import DatasetError
from tests.datasets.writers.labelled_sets import CLASSES, labelled_set, picture_bytes, thing

SIZE = (64, 48)
NAMES = ("a.png", "sub/a picture ö.png", "a 1.b.jpg")
# How far a format may move an edge, in pixels; JSONL holds bins, and Pascal VOC whole pixels.
NEAR = {"coco": 0.002, "yolo": 0.001, "jsonl": max(SIZE) / 1000, "voc": 0.501}


def _side(length: int) -> st.SearchStrategy[tuple[float, float]]:
    """First and last coordinate of a box along one side."""
    return st.floats(0, length - 2).flatmap(lambda first: st.tuples(st.just(first), st.floats(min(first + 2, length), length)))


_boxes = st.tuples(_side(SIZE[0]), _side(SIZE[1])).map(lambda sides: (sides[0][0], sides[1][0], sides[0][1], sides[1][1]))
_objects = st.lists(st.tuples(st.sampled_from(["car", "größe", "traffic light"]), _boxes), max_size=6)


def write(folder: Path, name: str, found: list[list[tuple[str, tuple]]], split: Split = "train") -> None:
    """A labelled set of pictures with these objects, as one format."""
    pictures = []
    for place, (picture_name, objects) in enumerate(zip(NAMES, found, strict=True)):
        file = folder / f"original-{place}"
        file.write_bytes(picture_bytes(SIZE))
        things = tuple(thing(label, box) for label, box in objects)
        examples = (("<OD>", write_boxes(sorted(objects, key=lambda one: one[1]), SIZE)),)
        pictures.append(LabelledPicture(picture_name, file, SIZE, things, examples=examples, split=split if place else "train"))
    (folder / name).mkdir()
    FORMATS[name](labelled_set(pictures, ("car", "größe", "traffic light")), folder / name, WriteOptions())


def objects_of(record: Record) -> list[tuple[str, tuple[float, ...]]]:
    return sorted(zip(record.truth.labels, record.truth.boxes, strict=True))


@pytest.mark.parametrize("name", NEAR)
@settings(max_examples=8, deadline=None)
@given(found=st.tuples(_objects, _objects, _objects))
def test_objects_come_back(name, found):
    with TemporaryDirectory() as home:
        write(Path(home), name, list(found))
        data = read_dataset(f"{home}/{name}")
        assert data.problems == []
        records = {Path(str(record.picture)).stem[-1]: record for record in data.sound()}
        for picture_name, objects in zip(NAMES, found, strict=True):
            read = objects_of(records[Path(picture_name).stem[-1]])
            assert [label for label, _ in read] == [label for label, _ in sorted(objects)]
            for label in {label for label, _ in objects}:
                meant = sorted(box for one, box in objects if one == label)
                assert all(any(box == pytest.approx(other, abs=NEAR[name]) for _, other in read) for box in meant)


@pytest.mark.parametrize("name", NEAR)
def test_what_was_held_out_is_measured_on(tmp_path: Path, name):
    write(tmp_path, name, [[("car", (1, 2, 30, 40))]] * 3, split="val")
    assert len(read_dataset(str(tmp_path / name)).sound()) == 1
    assert len(read_dataset(str(tmp_path / name), for_training=False).sound()) == 2


def test_the_folder_of_a_labelling_run_is_read_by_its_best_format(tmp_path: Path):
    (tmp_path / ".florence2").mkdir()
    for number, name in enumerate(("voc", "yolo", "coco", "jsonl")):
        write(tmp_path, name, [[("car", (1, 2, 30, 40))]] * 3, split="val")
        assert f"/{name}/" in read_dataset(str(tmp_path)).name + "/", number
        assert len(read_dataset(str(tmp_path), for_training=False).sound()) == 2


def test_formats_that_are_not_read_are_named(tmp_path: Path):
    for name in (".florence2", "cvat", "csv"):
        (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match=r"in formats that are not read \(csv, cvat\)"):
        read_dataset(str(tmp_path))


def test_captions_beside_pictures(tmp_path: Path):
    (tmp_path / "original").write_bytes(picture_bytes(SIZE))
    (tmp_path / "sidecar").mkdir()
    picture = LabelledPicture("a.png", tmp_path / "original", SIZE, texts={"<CAPTION>": "a car"})
    FORMATS["sidecar"](labelled_set([picture], CLASSES), tmp_path / "sidecar", WriteOptions())
    (record,) = read_dataset(str(tmp_path / "sidecar")).sound()
    assert (record.tag, record.answers) == ("<CAPTION>", ("a car",))
