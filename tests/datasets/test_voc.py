"""Pascal VOC in the layouts of its exporters, and what is said of files that can't be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from florence2.datasets.boxes import CLIPPED
from florence2.datasets.reader import read_dataset
from florence2.errors import DatasetError
from tests.training.sets import write_pictures

BOX = "<bndbox><xmax>40</xmax><xmin>9</xmin><ymin>7</ymin><ymax>30.0</ymax></bndbox>"
CAT = f"<object><name> cat </name><part><name>head</name></part>{BOX}</object>"


def annotation(
    content: str = CAT, name: str = "0.png", size: str = "<size><width>80</width><height>60</height><depth>3</depth></size>"
) -> str:
    return f"<annotation><folder>x</folder><filename>{name}</filename>{size}{content}</annotation>"


def one(folder: Path, content: str | bytes):
    write_pictures(folder, 1)
    (folder / "0.xml").write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_dataset(str(folder))


@pytest.mark.parametrize("name", ["0.png", "", "other.jpg"])  # the file's own name counts where the one in it is that of nothing
def test_boxes_are_counted_from_one(tmp_path: Path, name):
    (record,) = one(tmp_path, annotation(name=name)).sound()
    assert (record.truth.labels, record.truth.boxes) == (("cat",), ((8, 6, 40, 30),))


@pytest.mark.parametrize(
    ("annotations", "pictures"), [("Annotations", "JPEGImages"), ("annotations", "images"), ("labels", "images"), ("", "")]
)
def test_pictures_and_annotations_in_folders_of_their_own(tmp_path: Path, annotations, pictures):
    write_pictures(tmp_path / "set" / pictures, 2)
    (tmp_path / "set" / annotations).mkdir(exist_ok=True)
    for number in range(2):
        (tmp_path / "set" / annotations / f"{number}.xml").write_text(annotation(name=f"{number}.png"))
    assert len(read_dataset(str(tmp_path / "set")).sound()) == 2
    asked = read_dataset(str(tmp_path), prompt="<OPEN_VOCABULARY_DETECTION>").sound()  # a folder around it
    assert asked[0].prompt == "<OPEN_VOCABULARY_DETECTION>cat"


def test_parts_by_folders_and_by_lists(tmp_path: Path):
    for part in ("train", "valid"):
        write_pictures(tmp_path / "folders" / part, 1)
        (tmp_path / "folders" / part / "0.xml").write_text(annotation())
    write_pictures(tmp_path / "lists" / "JPEGImages", 2)
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / "lists" / folder).mkdir(parents=True)
    for number, part in enumerate(("train", "val")):
        (tmp_path / "lists" / "Annotations" / f"{number}.xml").write_text(annotation(name=f"{number}.png"))
        (tmp_path / "lists" / "ImageSets" / "Main" / f"{part}.txt").write_text(f"{number} 1\n")
    (tmp_path / "lists" / "ImageSets" / "Main" / "cat_train.txt").write_text("0 1\n1 -1\n")
    for name in ("folders", "lists"):
        learnt, apart = (read_dataset(str(tmp_path / name), for_training=flag).sound() for flag in (True, False))
        assert len(learnt) == len(apart) == 1
        assert learnt[0].picture != apart[0].picture


PROBLEMS = {
    "it is no XML": "<annotation>",
    "it begins with 'svg'": "<svg/>",
    "it defines entities": '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>',
    "larger than 16 MiB": annotation("<!--" + "x" * (17 << 20) + "-->"),
    "upright, and the file says 60 x 80": annotation(size="<size><width>60</width><height>80</height></size>"),
    "it has no name": annotation(f"<object>{BOX}</object>"),
    "expected bndbox with xmin, ymin, xmax and ymax": annotation("<object><name>cat</name></object>"),
    "got '9, nothing, 40, 5'": annotation("<object><name>cat</name><bndbox><xmin>9</xmin><xmax>40</xmax><ymax>5</ymax></bndbox></object>"),
    "lies outside its image": annotation(CAT.replace("40", "400")),
}


@pytest.mark.parametrize("message", PROBLEMS)
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, message):
    (tmp_path / "!.xml").write_text(annotation())  # another one, so that the folder is known for what it is
    data = one(tmp_path, PROBLEMS[message])
    (problem,) = data.problems
    assert problem.where.startswith(f"{tmp_path}/0.xml")
    assert message in problem.message


def test_files_and_pictures_that_are_not_there(tmp_path: Path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "0.xml").write_text(annotation())
    (problem,) = read_dataset(str(tmp_path / "set")).problems
    assert "its image '0.png' is not in" in problem.message
    write_pictures(tmp_path / "pictures", 1)
    assert len(read_dataset(str(tmp_path / "set"), images=tmp_path / "pictures").sound()) == 1


def test_the_first_pixel_may_be_zero_and_a_box_may_reach_out_a_little(tmp_path: Path):
    data = one(tmp_path, annotation(CAT.replace(">9<", ">0<") + CAT.replace(">40<", ">81<")))
    assert [record.truth.boxes for record in data.sound()] == [((0, 6, 40, 30), (8, 6, 80, 30))]
    assert data.notices == {CLIPPED: 1}


def test_other_questions_are_refused(tmp_path: Path):
    one(tmp_path, annotation())
    with pytest.raises(DatasetError, match="a Pascal VOC data set answers"):
        read_dataset(str(tmp_path), prompt="<CAPTION>")
