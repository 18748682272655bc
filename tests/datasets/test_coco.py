"""What is read of COCO detection files as exporters write them, and what is said of what can't be read."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from florence2.datasets.boxes import CLIPPED
from florence2.datasets.reader import read_dataset
from florence2.errors import DatasetError
from tests.training.sets import write_coco, write_pictures

DETECTION = "<OPEN_VOCABULARY_DETECTION>"


def images(count=2, **changes):
    return [{"id": n + 1, "file_name": f"{n}.png", "width": 80, "height": 60, **changes} for n in range(count)]


def annotation(number: int | str = 1, **changes):
    return {"id": number, "image_id": 1, "category_id": 5, "bbox": [8, 6, 24, 12], "iscrowd": 0, **changes}


def test_coco_boxes_stand_from_left_to_right(tmp_path):
    data = read_dataset(str(write_coco(tmp_path / "coco.json")))
    assert data.problems == []
    first, second = data.sound()
    assert first.prompt == "<OD>"
    assert first.answers == ("dog<loc_103><loc_100><loc_403><loc_300>cat<loc_500><loc_166><loc_750><loc_666>",)
    assert first.truth.boxes == ((8.25, 6.0, 32.25, 18.0), (40.0, 10.0, 60.0, 40.0))
    assert first.ignored == (("dog", (0.0, 0.0, 80.0, 60.0)),)
    assert second.answers == ("",)
    asked = read_dataset(str(tmp_path / "coco.json"), prompt="<OPEN_VOCABULARY_DETECTION>").sound()
    assert asked[0].prompt == "<OPEN_VOCABULARY_DETECTION>cat<and>dog"


def test_coco_boxes_of_a_picture_of_another_size_are_not_taken(tmp_path):
    path = write_coco(tmp_path / "coco.json")
    picture = Image.open(tmp_path / "0.png")
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture.save(tmp_path / "0.png", exif=exif)
    Image.new("RGB", (40, 30)).save(tmp_path / "1.png")
    turned, small = read_dataset(str(path)).problems
    assert turned.message.startswith("its file has 60 x 80 pixels, and the data set says 80 x 60; its EXIF data turn it")
    assert small.message == "its file has 40 x 30 pixels, and the data set says 80 x 60"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_of_the_upright_picture(tmp_path, orientation):
    stored, turned = (80, 60), (60, 80) if orientation > 4 else (80, 60)
    write_pictures(tmp_path, 1, size=stored)
    picture = Image.open(tmp_path / "0.png")
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "0.jpg", exif=exif)
    # Label Studio takes the sizes of the browser, which has turned the picture, and separates folders as Windows does.
    (tmp_path / "images").mkdir()
    (tmp_path / "0.jpg").rename(tmp_path / "images" / "0.jpg")
    image = {"id": 0, "file_name": "images\\0.jpg", "width": turned[0], "height": turned[1]}
    entry = {"id": 0, "image_id": 0, "category_id": 0, "segmentation": [], "bbox": [6.5, 8.25, 20.0, 40.0], "ignore": 0, "iscrowd": 0}
    path = write_coco(tmp_path / "result.json", images=[image], annotations=[entry], categories=[{"id": 0, "name": "cat"}])
    (record,) = read_dataset(str(path)).sound()
    assert (record.size, record.truth.boxes) == (turned, ((6.5, 8.25, 26.5, 48.25),))
    path = write_coco(tmp_path / "result.json", images=[{**image, "width": turned[1], "height": turned[0]}], annotations=[entry])
    assert "the data set says" in read_dataset(str(path)).problems[-1].message


REFUSED = {
    "its category_id 9 is that of no category": {"category_id": 9},
    "expected category_id as a whole number or a text, got None (null)": {"category_id": None},
    "expected category_id as a whole number or a text, got True (a boolean)": {"category_id": True},
    "expected category_id as a whole number or a text, got 5.5 (a number)": {"category_id": 5.5},
    "[70.0, 0.0, 95.0, 5.0] lies outside its image of 80 x 60": {"bbox": [70, 0, 25, 5]},
    "expected bbox as x, y, width, height in pixels, the last two greater than 0, got 'x'": {"bbox": "x"},
    "greater than 0, got None": {"bbox": None},
    "greater than 0, got [1, 1, 0, 5]": {"bbox": [1, 1, 0, 5]},
    "greater than 0, got [10, 10, -5, 5]": {"bbox": [10, 10, -5, 5]},
    "looks like fractions of its image": {"bbox": [0.25, 0.5, 0.5, 0.25]},
    "(no number is larger than 1)": {"bbox": [0, 0, 1, 1]},
    "expected iscrowd as 0 or 1, got 'yes' (a text)": {"iscrowd": "yes"},
    "expected iscrowd as 0 or 1, got 2 (a number)": {"iscrowd": 2},
    "its category 6 has no name": {"category_id": 6},
    "its category_id 8 is that of several categories: bird, fish": {"category_id": 8},
    "'size<' would be lost": {"category_id": 10},
}
CATEGORIES = [
    {"id": 5, "name": "cat"},
    {"id": 6, "name": "  "},
    {"id": 8, "name": "bird"},
    {"id": 8, "name": "fish"},
    {"id": 10, "name": "size<5"},
]


@pytest.mark.parametrize("message", REFUSED)
@pytest.mark.parametrize("for_training", [True, False])
def test_a_picture_with_a_refused_annotation_is_left_out(tmp_path, message, for_training):
    annotations = [annotation(1), annotation(2, **REFUSED[message]), annotation(3, image_id=2)]
    write_pictures(tmp_path, 3)
    path = write_coco(tmp_path / "coco.json", images=images(3), annotations=annotations, categories=CATEGORIES)
    data = read_dataset(str(path), for_training=for_training)
    assert message in data.problems[0].message
    assert [record.where for record in data.sound(skip_bad=True)] == [f"{path}: image 2", f"{path}: image 3"]
    assert [record.answers for record in data.records] == [("cat<loc_100><loc_100><loc_400><loc_300>",), ("",)]
    with pytest.raises(DatasetError, match="1 problem"):
        data.sound()


def test_what_is_wrong_in_coco_is_told_by_its_id(tmp_path):
    annotations = [
        annotation(1, image_id=9),
        annotation(2, category_id=9),
        annotation(3, bbox=[70, 0, 25, 5]),
        annotation(4, bbox="x"),
        annotation(5),
        {"category_id": 5},
        7,
    ]
    shown = [*images(1), {"id": 2, "file_name": "none.png"}, {"id": 3}, {"id": True, "file_name": "1.png"}, "x"]
    path = write_coco(tmp_path / "coco.json", annotations=annotations, images=shown)
    data = read_dataset(str(path))
    told = [problem.where.removeprefix(f"{path}: ") for problem in data.problems]
    annotated = [f"annotation {n}" for n in (1, 2, "number 6 of the list", "number 7 of the list", 3, 4)]
    assert told == [*annotated, "image 2", "image 3", "image True", "image number 5 of the list"]
    assert "expected image_id as a whole number or a text, got nothing" in data.problems[2].message
    assert "expected file_name as a text, got nothing" in data.problems[7].message
    assert "expected id as a whole number or a text, got True (a boolean)" in data.problems[8].message
    assert data.records == []


def test_ids_and_sizes_are_taken_however_they_are_written(tmp_path):
    shown = [
        {"id": "1", "file_name": "0.png", "width": "80", "height": 60.0},
        {"id": 2.0, "file_name": "1.png", "width": None, "height": "60.0"},
    ]
    shown += [{"id": "b7f3-aa", "file_name": "2.png"}, {"id": "0004", "file_name": "3.png"}]
    annotations = [
        annotation("a", image_id=1, category_id="5", iscrowd="0"),
        annotation("b", image_id="1.0", category_id=5.0, iscrowd="1"),
        annotation("c", image_id="2", category_id=5, iscrowd=None, bbox=["40", "10.0", "20", "30"]),
        annotation("d", image_id="b7f3-aa", category_id="x", iscrowd=False),
        {"id": 9, "image_id": "0004", "category_id": "x", "bbox": [1, 1, 4, 4]},
    ]
    write_pictures(tmp_path, 4)
    path = write_coco(
        tmp_path / "coco.json", images=shown, annotations=annotations, categories=[{"id": 5, "name": "cat"}, {"id": "x", "name": 7}]
    )
    write_pictures(tmp_path, 4)
    first, second, third, fourth = read_dataset(str(path)).sound()
    assert (first.truth.labels, first.ignored) == (("cat",), (("cat", (8.0, 6.0, 32.0, 18.0)),))
    assert second.truth.boxes == ((40.0, 10.0, 60.0, 40.0),)
    assert (third.truth.labels, fourth.truth.labels) == (("7",), ("7",))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"width": "4x"}, "expected width as a whole number, got '4x' (a text)"),
        ({"height": [60]}, "expected height as a whole number, got [60] (a list)"),
        ({"height": 60.5}, "expected height as a whole number, got 60.5 (a number)"),
        ({"width": "81", "height": None}, "its file has 80 x 60 pixels, and the data set says 81 x ?"),
        ({"width": 0, "height": 0}, "the data set says 0 x 0"),
        ({"file_name": 3}, "expected file_name as a text, got 3 (a number)"),
    ],
)
def test_what_an_image_says_of_itself_is_checked(tmp_path, size, message):
    (problem,) = read_dataset(str(write_coco(tmp_path / "coco.json", images=images(1, **size), annotations=[]))).problems
    assert message in problem.message


def test_images_that_share_an_id_or_a_file_are_left_out(tmp_path):
    shown = [*images(2), {"id": 2, "file_name": "2.png"}, {"id": 4, "file_name": "3.png"}, {"id": 5, "file_name": "./3.png"}]
    write_pictures(tmp_path, 4)
    path = write_coco(tmp_path / "coco.json", images=shown)
    write_pictures(tmp_path, 4)
    data = read_dataset(str(path))
    assert [record.where for record in data.records] == [f"{path}: image 1"]
    assert [problem.message.split(";")[0] for problem in data.problems] == [
        *["its id is that of another image too"] * 2,
        *["its file is that of another image too"] * 2,
    ]


def test_a_box_a_little_outside_is_cut_at_the_edge_and_counted(tmp_path):
    annotations = [
        annotation(1, bbox=[-1.5, 6, 20, 12]),
        annotation(2, bbox=[70, 50, 12, 12]),
        annotation(3, bbox=[60.1, 0, 19.9, 20]),
        annotation(4, image_id=2, bbox=[-1, 0, 10, 10]),
        annotation(5, image_id=2, bbox=[70, 0, 12.5, 10]),
    ]
    data = read_dataset(str(write_coco(tmp_path / "coco.json", annotations=annotations)))
    assert data.records[0].truth.boxes == ((0.0, 6.0, 18.5, 18.0), (60.1, 0.0, 80.0, 20.0), (70.0, 50.0, 80.0, 60.0))
    assert dict(data.notices) == {CLIPPED: 2}
    assert [problem.where.rpartition(": ")[2] for problem in data.problems] == ["annotation 5"]


def roboflow(*names, parent="animals"):
    """Categories as Roboflow exports them: a first one that groups the others and that nothing belongs to."""
    grouped = [{"id": number, "name": name, "supercategory": parent} for number, name in enumerate(names, start=1)]
    return [{"id": 0, "name": parent, "supercategory": "none"}, *grouped]


@pytest.mark.parametrize(
    ("categories", "asked"),
    [
        (roboflow("cat", "dog"), "cat<and>dog"),
        (roboflow("cat", "dog", parent="cat"), "cat<and>dog"),
        ([{"id": 1, "name": "cat", "supercategory": "cat"}, {"id": 2, "name": "dog", "supercategory": "cat"}], "cat<and>dog"),
        ([{"id": 1, "name": " cat "}, {"id": 2, "name": "dog\t"}, {"id": 3, "name": "cat"}], "cat<and>dog"),
        ([{"id": 1, "name": "cat"}, {"id": 3}, {"id": 4, "name": ""}, {"id": 5, "name": None}, "x", {"name": "y"}], "cat"),
        ([{"id": 1, "name": "cat"}, {"id": 1, "name": "cat "}, {"id": 2, "name": "person", "supercategory": "person"}], "cat<and>person"),
        ([{"id": 1, "name": "car", "supercategory": "vehicle"}, {"id": 2, "name": "vehicle", "supercategory": "none"}], "car"),
    ],
)
def test_classes_are_what_can_be_asked_for(tmp_path, categories, asked):
    path = write_coco(tmp_path / "coco.json", annotations=[annotation(category_id=1)], categories=categories)
    records = read_dataset(str(path), prompt=DETECTION).sound()
    assert [record.prompt for record in records] == [DETECTION + asked] * 2
    assert records[0].truth.labels == (asked.split("<and>")[0],)


def test_a_group_that_has_boxes_of_its_own_is_a_class(tmp_path):
    path = write_coco(tmp_path / "coco.json", annotations=[annotation(category_id=0)], categories=roboflow("cat", "dog"))
    assert read_dataset(str(path), prompt=DETECTION).sound()[0].prompt == DETECTION + "animals<and>cat<and>dog"


def test_classes_of_one_name_are_one_class(tmp_path):
    annotations = [annotation(1, category_id=1), annotation(2, category_id=3, bbox=[40, 6, 24, 12])]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": " cat"}]
    path = write_coco(tmp_path / "coco.json", annotations=annotations, categories=categories)
    assert read_dataset(str(path)).sound()[0].truth.labels == ("cat", "cat")


@pytest.mark.parametrize("prompt", ["<CAPTION>", "find", "<OPEN_VOCABULARY_DETECTION>cat"])
def test_other_questions_are_refused(tmp_path, prompt):
    with pytest.raises(DatasetError, match="answers <OD> or <OPEN_VOCABULARY_DETECTION>"):
        read_dataset(str(write_coco(tmp_path / "coco.json")), prompt=prompt)


def test_the_file_is_what_its_content_says(tmp_path):
    path = write_coco(tmp_path / "coco.json")
    path.write_bytes(json.dumps(json.loads(path.read_text()), indent=1).encode("utf-16"))
    assert len(read_dataset(str(path)).sound()) == 2
