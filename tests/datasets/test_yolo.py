"""YOLO data sets in the layouts of their exporters, and what is said of labels that can't be read."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florence2.datasets.boxes import CLIPPED
from florence2.datasets.folders import part_of
from florence2.datasets.reader import read_dataset
from florence2.datasets.yolo import REPEATED, UNLABELLED, WITHOUT_PICTURE
from florence2.errors import DatasetError
from florence2.training import FineTuneData
from tests.datasets.test_folders import records_of
from tests.training.sets import write_pictures

LINES = "1 0.5 0.5 0.5 0.5\n0 0.25 0.5 0.2 0.4\n"
LABELS = ("cat", "dog")  # from left to right
DETECTION = "<OPEN_VOCABULARY_DETECTION>"


def put(images: Path, labels: Path, lines: str = LINES, count: int = 2) -> None:
    """Pictures of 80 x 60 with a label file each."""
    labels.mkdir(parents=True, exist_ok=True)
    for name in write_pictures(images, count):
        (labels / name).with_suffix(".txt").write_text(lines)


def describe(folder: Path, text: str, name: str = "data.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def roboflow(folder: Path, parts: list[str]) -> None:
    for part in parts:
        put(folder / part / "images", folder / part / "labels")
    for name in ("README.roboflow.txt", "README.dataset.txt"):
        (folder / name).write_text("exported")
    describe(
        folder,
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'dog']\n\nroboflow:\n  version: 3\n",
    )


def roboflow_darknet(folder: Path, parts: list[str]) -> None:
    for part in parts:
        put(folder / part, folder / part)
        (folder / part / "_darknet.labels").write_text("cat\ndog\n")


def ultralytics(folder: Path, parts: list[str]) -> None:
    for part in parts:
        put(folder / "images" / part, folder / "labels" / part)
    describe(
        folder,
        f"path: ../datasets/{folder.name} # root\ntrain: images/train\nval: images/valid\ntest: # optional\nnames:\n  0: cat\n  1: dog\n",
        "my.yaml",
    )
    if "test" in parts:
        describe(folder, "path: .\ntrain: images/train\nval: [images/valid]\ntest: images/test\nnames: {0: cat, 1: dog}\n", "data.yaml")


def lists(folder: Path, parts: list[str]) -> None:
    """CVAT's, whose lists say ``data/`` before each name."""
    text = "path: ./\n"
    for part in parts:
        put(folder / "images" / part, folder / "labels" / part)
        (folder / f"{part}.txt").write_text(f"data/images/{part}/0.png\n./images/{part}/1.png\n\n")
        text += f"{part}: {part}.txt\n"
    describe(folder, text + "names:\n  0: cat\n  1: dog\n")


def darknet(folder: Path, parts: list[str]) -> None:
    for part in parts:
        put(folder / f"obj_{part}_data", folder / f"obj_{part}_data")
        (folder / f"{part}.txt").write_text(f"data/obj_{part}_data/0.png\nobj_{part}_data/1.png\n")
    (folder / "obj.names").write_text("cat\ndog\n")
    (folder / "obj.data").write_text("classes = 2\ntrain = data/train.txt\n")


def autodistill(folder: Path, parts: list[str]) -> None:
    for part in parts:
        put(folder / part / "images", folder / part / "labels")
        (folder / part / "labels" / "confidence-0.txt").write_text("0.9\n0.8\n")
    for name in ("images", "annotations"):
        (folder / name).mkdir()
    (folder / "config.json").write_text("{}")
    text = "".join(f"{'val' if part == 'valid' else part}: /content/elsewhere/set/{part}/images\n" for part in parts)
    describe(folder, f"names:\n- cat\n- dog\nnc: 2\n{text}")


LAYOUTS = [roboflow, roboflow_darknet, ultralytics, lists, darknet, autodistill]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_parts_of_each_layout(tmp_path: Path, layout):
    folder = tmp_path / "set"
    layout(folder, ["train", "valid", "test"])
    for for_training, part in ((True, "train"), (False, "test")):
        data = read_dataset(str(folder), for_training=for_training)
        assert (data.problems, dict(data.notices)) == ([], {})
        assert [Path(str(record.picture)).name for record in data.sound()] == ["0.png", "1.png"]
        assert all(f"/set/{part}/" in str(record.picture) or f"{part}" in str(record.picture) for record in data.records)
        assert {record.truth.labels for record in data.records} == {LABELS}
    trained, held_out, _ = records_of(FineTuneData((str(folder),)))
    assert (len(trained), len(held_out)) == (2, 2)
    assert part_of(str(folder), "valid") is not None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_a_test_part_valid_is_measured_on(tmp_path: Path, layout):
    layout(tmp_path / "set", ["train", "valid"])
    assert all("valid" in str(record.picture) for record in read_dataset(str(tmp_path / "set"), for_training=False).sound())


def test_the_exact_boxes(tmp_path: Path):
    roboflow(tmp_path, ["train"])
    first = read_dataset(str(tmp_path)).sound()[0]
    assert first.truth.boxes == (pytest.approx((12, 18, 28, 42)), pytest.approx((20, 15, 60, 45)))
    assert first.answers == ("cat<loc_150><loc_300><loc_350><loc_700>dog<loc_250><loc_250><loc_750><loc_750>",)
    asked = read_dataset(str(tmp_path / "data.yaml"), prompt=DETECTION).sound()[0]
    assert asked.prompt == DETECTION + "cat<and>dog"
    with pytest.raises(DatasetError, match="a YOLO data set answers <OD>"):
        read_dataset(str(tmp_path), prompt="<CAPTION>")


def bare(folder: Path) -> None:
    put(folder / "images", folder / "labels")
    (folder / "classes.txt").write_text("cat\r\ndog\r\n\r\n")
    (folder / "notes.json").write_text("{}")


def labelimg(folder: Path) -> None:
    put(folder / "images", folder / "labels")
    (folder / "labels" / "classes.txt").write_text("cat\ndog\n")


def beside(folder: Path) -> None:
    put(folder, folder)
    (folder / "classes.txt").write_text("cat\ndog\n")


def supervision(folder: Path) -> None:
    put(folder / "images", folder / "annotations")
    describe(folder, "names:\n- cat\n- dog\nnc: 2\n")


@pytest.mark.parametrize("layout", [bare, labelimg, beside, supervision])
@pytest.mark.parametrize("for_training", [True, False])
def test_a_set_without_parts(tmp_path: Path, layout, for_training):
    layout(tmp_path / "set")
    data = read_dataset(str(tmp_path / "set"), for_training=for_training)
    assert (len(data.sound()), dict(data.notices)) == (2, {})
    assert records_of(FineTuneData((str(tmp_path / "set"),), validation_share=0.5))[1]


@pytest.mark.parametrize("inner", ["train", "train/images"])
def test_a_part_given_by_its_folder(tmp_path: Path, inner):
    roboflow(tmp_path, ["train"])
    for for_training in (True, False):
        assert len(read_dataset(str(tmp_path / inner), for_training=for_training).sound()) == 2


def test_pictures_that_lie_elsewhere(tmp_path: Path):
    bare(tmp_path / "set")
    os.rename(tmp_path / "set" / "images", tmp_path / "pictures")
    data = read_dataset(str(tmp_path / "set"), images=tmp_path / "pictures")
    assert (len(data.sound()), dict(data.notices)) == (2, {})


def test_what_was_not_held_out_is_no_part_to_hold_out(tmp_path: Path):
    put(tmp_path / "images" / "train", tmp_path / "labels" / "train")
    describe(tmp_path, "train: images/train\nval: images/train\nnames: [cat, dog]\n")
    assert part_of(str(tmp_path), "valid") is None
    assert [len(records) for records in records_of(FineTuneData((str(tmp_path),), validation_share=0.5))[:2]] == [1, 1]
    assert len(read_dataset(str(tmp_path), for_training=False).sound()) == 2


def one(folder: Path, content: str | bytes, names: str = "[cat, dog]", more: str = ""):
    """The data set of one picture with a label file."""
    put(folder / "images", folder / "labels", count=1)
    (folder / "labels" / "0.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    describe(folder, f"names: {names}\n{more}")
    return read_dataset(str(folder))


BOX = pytest.approx((20, 15, 60, 45), abs=1e-3)


@pytest.mark.parametrize(
    ("content", "more"),
    [
        ("1 0.5 0.5 0.5 0.5", ""),
        ("\ufeff1\t0.5   0.5 5e-1 .5 \r\n\r\n", ""),
        ("# made by hand\n1.0 0.5 0.5 0.5 0.5 # a dog\n", ""),
        ("1 0.5 0.5 0.5 0.5 0.93", ""),  # a confidence
        ("1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75", ""),  # a box that may be turned
        ("1 0.25 0.25 0.75 0.25 0.5 0.75", ""),  # an outline
        ("1 0.5 0.5 0.5 0.5 0.1 0.1 2 0.2 0.2 0", "kpt_shape: [2, 3]"),
        ("1 0.5 0.5 0.5 0.5 0.1 0.1 0.2 0.2", "kpt_shape: [2, 2]"),
        ("1 0.5 0.5 0.5 0.5\n".encode("utf-16"), ""),
    ],
)
def test_lines_that_are_a_box(tmp_path: Path, content, more):
    data = one(tmp_path, content, more=more)
    assert data.sound()[0].truth.boxes == (BOX,)
    assert data.notices == {}


BAD_LINES = {
    "its class is 2, and data.yaml names the classes 0 to 1": "2 0.5 0.5 0.5 0.5",
    "its class is -1": "-1 0.5 0.5 0.5 0.5",
    "its class is 0.5": "0.5 0.5 0.5 0.5 0.5",
    "expected numbers with spaces between them, the class first, got 'dog'": "dog 0.5 0.5 0.5 0.5",
    "expected numbers with spaces between them, the class first, got '0,5'": "1 0,5 0,5 0,5 0,5",
    "got 'nan'": "1 nan 0.5 0.5 0.5",
    "behind the class": "1 0.5 0.5 0.5",
    "got 7": "1 0.1 0.1 0.2 0.2 0.3 0.3 0.4",
    "got 0": "1",
    "the last two greater than 0, got 0.5, 0.5, 0, 0.5": "1 0.5 0.5 0 0.5",
    "divide pixels by its size": "1 40 30 40 30",
    "lies outside its image": "1 0.9 0.5 0.5 0.5",
}


@pytest.mark.parametrize("message", BAD_LINES)
def test_a_bad_line_is_told_and_its_picture_left_out(tmp_path: Path, message):
    put(tmp_path / "images", tmp_path / "labels")
    (tmp_path / "labels" / "0.txt").write_text(LINES + BAD_LINES[message] + "\n")
    describe(tmp_path, "names: [cat, dog]")
    data = read_dataset(str(tmp_path))
    (problem,) = data.problems
    assert problem.where == f"{tmp_path}/labels/0.txt:3"
    assert message in problem.message
    assert [str(record.picture) for record in data.sound(skip_bad=True)] == [f"{tmp_path}/images/1.png"]


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff\xfe\xff", "is not UTF-16"), (b"1 0.5 \xe4", "is not UTF-8"), (b"1" * (17 << 20), "larger than 16 MiB")]
)
def test_label_files_that_are_none(tmp_path: Path, content, message):
    (problem,) = one(tmp_path, content).problems
    assert (problem.where, message in problem.message) == (f"{tmp_path}/labels/0.txt", True)


def test_what_is_not_as_it_should_be_is_counted(tmp_path: Path):
    put(tmp_path / "images", tmp_path / "labels", count=4)
    labels = tmp_path / "labels"
    (labels / "0.txt").write_text("0 0.5 0.5 0.4 0.4\n0 0.50 0.5 0.4 0.4\n")
    (labels / "1.txt").write_text("0 0.5 0.5 1.01 0.4\n1 0.5 0.5 1.000001 0.4\n")
    (labels / "2.txt").write_text("\n")
    os.rename(labels / "3.txt", labels / "4.txt")
    describe(tmp_path, "names: [cat, dog]")
    data = read_dataset(str(tmp_path))
    assert dict(data.notices) == {REPEATED: 1, CLIPPED: 1, UNLABELLED: 1, WITHOUT_PICTURE: 1}
    assert [record.truth.labels for record in data.sound()] == [("cat",), ("cat", "dog"), (), ()]


def test_pictures_without_a_single_label_are_a_mistake(tmp_path: Path):
    put(tmp_path / "images", tmp_path / "labels")
    describe(tmp_path, "names: [cat, dog]")
    for file in list((tmp_path / "labels").iterdir()):
        file.rename(file.with_name(f"x{file.name}"))
    with pytest.raises(DatasetError, match=r"no image has a label file; that of .*images/0\.png would be .*labels/0\.txt"):
        read_dataset(str(tmp_path))
    for file in list((tmp_path / "labels").iterdir()):
        file.unlink()
    (tmp_path / "labels").rmdir()
    with pytest.raises(DatasetError, match=r"that of .*images/0\.png would be .*labels/0\.txt"):
        read_dataset(str(tmp_path))
    (tmp_path / "labels").mkdir()
    assert read_dataset(str(tmp_path)).notices == {UNLABELLED: 2}  # tools that write no file for a picture that shows nothing


def test_names_in_either_unicode_form(tmp_path: Path):
    put(tmp_path / "images", tmp_path / "labels", count=1)
    os.rename(tmp_path / "images" / "0.png", tmp_path / "images" / unicodedata.normalize("NFC", "gräte.png"))
    os.rename(tmp_path / "labels" / "0.txt", tmp_path / "labels" / unicodedata.normalize("NFD", "gräte.txt"))
    describe(tmp_path, "names: [cat, dog]")
    assert read_dataset(str(tmp_path)).sound()[0].truth.labels == LABELS


def test_names_of_classes_are_as_they_stand_there(tmp_path: Path):
    data = one(tmp_path, "0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.6 0.6\n7 0.5 0.5 0.7 0.7\n", "{0: no, 1: 1.10, 7: ' traffic light '}")
    assert sorted(data.sound()[0].truth.labels) == ["1.10", "no", "traffic light"]


BAD_DESCRIPTIONS = {
    "has no names": "train: images",
    "expected names as a list or by the numbers": "names: cat",
    "got the key 'a'": "names: {a: cat}",
    "expected the name of class 1 as a text": "names: [cat, [dog]]",
    "says that there are 3 classes (nc) and names 2": "nc: 3\nnames: [cat, dog]",
    ":2 is no YAML": "names: [cat, dog]\n\ttrain: x",
    "aliases (*a) are not read": "names: &a [cat]\ntrain: *a",
    "a key stands twice in what begins at line 1": "names: [cat]\nnames: [dog]",
    "nested too deeply": "names: " + "[" * 5_000,
    "larger than 1 MiB": "names: [cat]\n#" + "x" * (1 << 20),
    "holds no keys and values": "- cat",
    "expected train as a folder": "names: [cat]\ntrain: {a: b}",
    "expected kpt_shape as two whole numbers": "names: [cat]\nkpt_shape: 17",
    "names ../gone/images, which is not there": "names: [cat]\ntrain: ../gone/images",
    "which is not there or empty": f"names: [cat]\ntrain: {'x' * 5_000}",
    "got the key '9999999999": "names: {" + "9" * 500 + ": cat}",
}


@pytest.mark.parametrize("message", BAD_DESCRIPTIONS)
def test_what_is_wrong_with_a_description(tmp_path: Path, message):
    put(tmp_path / "images", tmp_path / "labels")
    path = describe(tmp_path, BAD_DESCRIPTIONS[message])
    for name in (tmp_path, path):
        with pytest.raises(DatasetError) as caught:
            read_dataset(str(name))
        assert message in caught.value.message
        assert str(path) in caught.value.message


def test_what_a_description_names_and_is_not_there(tmp_path: Path):
    roboflow(tmp_path, ["train"])
    with pytest.raises(
        DatasetError,
        match=r"has no test or valid: it has train \(.*train/images\), and its data.yaml names ../valid/images, ../test/images",
    ):
        read_dataset(str(tmp_path), for_training=False)
    assert len(records_of(FineTuneData((str(tmp_path),), validation_share=0.5))[0]) == 1


def test_a_part_without_a_picture_is_none(tmp_path: Path):
    roboflow(tmp_path, ["train"])
    (tmp_path / "valid" / "images").mkdir(parents=True)
    assert part_of(str(tmp_path), "valid") is None
    with pytest.raises(DatasetError, match=r"names ../valid/images, ../test/images, which is not there or empty"):
        read_dataset(str(tmp_path), for_training=False)
    with pytest.raises(DatasetError, match=r"there is no image in .*train/labels"):
        read_dataset(str(tmp_path / "train" / "labels"))


def test_a_list_that_names_what_is_not_there(tmp_path: Path):
    lists(tmp_path, ["train"])
    (tmp_path / "train.txt").write_text("images/train/0.png\nimages/train/9.png\n")
    (problem,) = read_dataset(str(tmp_path)).problems
    assert (problem.where, "there is no file 'images/train/9.png'" in problem.message) == (f"{tmp_path}/train.txt:2", True)


def test_another_data_set_in_the_folder_above_is_not_read(tmp_path: Path):
    roboflow(tmp_path, ["train", "valid"])
    roboflow(tmp_path / "other", ["train"])
    assert all("/other/" in str(record.picture) for record in read_dataset(str(tmp_path / "other")).sound())


@settings(max_examples=25, deadline=None)
@given(st.text(alphabet="01 .-e#\t\nnx\u00b2\ud800", max_size=40))
def test_any_text_is_objects_or_problems(tmp_path_factory, text):
    data = one(tmp_path_factory.mktemp("set"), text.encode("utf-8", "surrogatepass"))
    assert len(data.records) == (0 if data.problems else 1)


def test_labels_whose_classes_nobody_names(tmp_path: Path):
    roboflow(tmp_path, ["train"])
    (tmp_path / "data.yaml").unlink()
    for name in (tmp_path, tmp_path / "train"):
        with pytest.raises(DatasetError, match=r"train/labels holds labels of YOLO, but nothing names their classes: put a data.yaml"):
            read_dataset(str(name))
