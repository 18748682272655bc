"""Folders as Roboflow, maestro and users of autodistill have them, and which part of one is learnt, held out or measured on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from florence2.datasets.folders import find_part, part_of
from florence2.datasets.reader import read_dataset
from florence2.errors import DatasetError
from florence2.training import FineTuneData
from florence2.training.preparation import Reports, Start, read_records
from tests.training.sets import command, write_coco, write_jsonl, write_pictures

LINE = {"image": "0.png", "prefix": "<OD>", "suffix": "cat<loc_1><loc_2><loc_1000><loc_1000>"}


def roboflow_coco(folder, parts):
    for part in parts:
        write_coco(folder / part / "_annotations.coco.json")
    (folder / "README.roboflow.txt").write_text("exported")


def maestro(folder, parts):
    for part in parts:
        write_pictures(folder / part)
        write_jsonl(folder / part / "annotations.jsonl", [LINE])
    (folder / "README.dataset.txt").write_text("exported")


def side_by_side(folder, parts):
    write_pictures(folder / "dataset")
    for part in parts:
        write_jsonl(folder / "dataset" / f"_annotations.{part}.jsonl", [LINE])


def unpacked(folder, parts):
    maestro(folder / "project-3", parts)
    (folder / "__MACOSX").mkdir()


LAYOUTS = [roboflow_coco, maestro, side_by_side, unpacked]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_are_found(tmp_path, layout):
    layout(tmp_path, ["train", "valid", "test"])
    learnt, measured = read_dataset(str(tmp_path)), read_dataset(str(tmp_path), for_training=False)
    assert learnt.problems == measured.problems == []
    assert ("train" in learnt.name, "test" in measured.name, "valid" in str(part_of(str(tmp_path), "valid"))) == (True, True, True)
    assert {record.where.split(".json")[0] for record in learnt.records} == {learnt.name.split(".json")[0]}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["valid", "val", "validation"])
def test_what_is_measured_on_is_valid_where_there_is_no_test(tmp_path, layout, name):
    layout(tmp_path, ["train", name])
    assert name in read_dataset(str(tmp_path), for_training=False).name


def coco_and_images(folder: Path, parts, annotations: str, images: str) -> None:
    for part in parts:
        path = write_coco(folder / annotations.format(part=part))
        (folder / images.format(part=part)).mkdir(parents=True)
        for picture in path.parent.glob("*.png"):
            picture.rename(folder / images.format(part=part) / picture.name)


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations/instances_{part}2017.json", "{part}2017"),
        ("annotations/instances_{part}.json", "images/{part}"),
        ("{part}/labels.json", "{part}/data"),
        ("{part}/_annotations.coco.json", "{part}/images"),
        ("{part}.json", "images/{part}"),
        ("annotations/{part}.json", "images"),
    ],
)
def test_coco_with_its_pictures_in_a_folder_of_their_own(tmp_path, annotations, images):
    coco_and_images(tmp_path, ["train", "val"] if images != "images" else ["train"], annotations, images)
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations" / "captions_train2017.json").write_text("{}")
    if "instances" not in annotations:
        (tmp_path / "annotations" / "captions_train2017.json").unlink()
    assert len(read_dataset(str(tmp_path)).sound()) == 2
    if images != "images":
        assert "val" in read_dataset(str(tmp_path), for_training=False).name


def test_coco_as_cvat_exports_it(tmp_path):
    coco_and_images(tmp_path, ["default"], "annotations/instances_{part}.json", "images/{part}")
    for for_training in (True, False):
        assert len(read_dataset(str(tmp_path), for_training=for_training).sound()) == 2


CAPTIONED = [
    ("metadata.jsonl", '{"file_name": "0.png", "text": "a cat"}\n{"file_name": "1.png", "text": "two, dogs"}\n'),
    ("metadata.csv", 'file_name,text\r\n0.png,a cat\r\n1.png,"two, dogs"\r\n'),
    ("metadata.csv", '\ufefffile_name,width,caption\n0.png,80,a cat\n1.png,,"two, dogs"\n'),
    ("metadata.tsv", "image\tcaption\n0.png\ta cat\n1.png\ttwo, dogs\n"),
]


@pytest.mark.parametrize(("name", "content"), CAPTIONED)
def test_image_folders_with_captions(tmp_path, name, content):
    for part in ("train", "test"):
        write_pictures(tmp_path / part)
        (tmp_path / part / name).write_text(content, encoding="utf-8", newline="")
    for for_training, prompt, tag in ((True, "<OD>", "<CAPTION>"), (False, "<DETAILED_CAPTION>", "<DETAILED_CAPTION>")):
        records = read_dataset(str(tmp_path), for_training=for_training, prompt=prompt).sound()
        assert [(record.tag, record.answers) for record in records] == [(tag, ("a cat",)), (tag, ("two, dogs",))]


def test_image_folders_with_boxes(tmp_path):
    write_pictures(tmp_path)
    box = {"bbox": [[8, 6, 32, 54]], "categories": ["cat"]}
    lines = [box, {**box, "categories": [0]}, {"bbox": [[1, 2, 3]], "categories": ["cat"]}, {"bbox": [], "categories": ["cat"]}]
    data = read_dataset(str(write_jsonl(tmp_path / "metadata.jsonl", [{"file_name": "0.png", "objects": objects} for objects in lines])))
    assert [record.truth.boxes for record in data.records] == [((8, 6, 40, 60),)]
    assert ["categories as names" in data.problems[0].message, "bbox as x, y" in data.problems[1].message, len(data.problems)] == [
        True,
        True,
        3,
    ]


def test_a_table_with_too_many_fields_names_its_line(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "captions.csv").write_text("file_name,text\n0.png,a cat, and a dog\n")
    with pytest.raises(DatasetError, match=r"captions\.csv:2 has 3 fields, and the first line names 2: put quotes"):
        read_dataset(str(tmp_path / "captions.csv"))


def test_a_folder_without_parts_is_its_only_file(tmp_path):
    write_coco(tmp_path / "train" / "_annotations.coco.json")
    (tmp_path / "train" / "notes.json").write_text("{}")
    for for_training in (True, False):
        assert len(read_dataset(str(tmp_path / "train"), for_training=for_training).sound()) == 2


def test_what_is_missing_or_ambiguous_is_told(tmp_path):
    with pytest.raises(DatasetError, match="has no train: there is no data file in it"):
        read_dataset(str(tmp_path))
    maestro(tmp_path, ["train"])
    with pytest.raises(DatasetError, match=r"has no test or valid: it has train \(.*/train/annotations\.jsonl\)"):
        read_dataset(str(tmp_path), for_training=False)
    (tmp_path / "valid").mkdir()  # of a format that is not read here
    (tmp_path / "valid" / "labels.txt").write_text("0 0.5 0.5 0.1 0.1")
    assert part_of(str(tmp_path), "valid") is None
    write_coco(tmp_path / "train" / "_annotations.coco.json")
    with pytest.raises(DatasetError, match=r"_annotations\.coco\.json and annotations\.jsonl; give the one"):
        read_dataset(str(tmp_path))
    shutil.rmtree(tmp_path / "train")
    for name in ("val", "validation"):
        maestro(tmp_path, [name])
    with pytest.raises(DatasetError, match="are both the part valid"):
        find_part(str(tmp_path), ("train",))


def test_what_is_no_folder_is_itself():
    assert find_part("synthetic:3", ("train",)) == Path("synthetic:3")
    assert part_of("synthetic:3", "valid") is None


def test_training_takes_train_and_holds_out_valid(tmp_path, capsys):
    maestro(tmp_path / "set", ["train", "valid", "test"])
    name = str(tmp_path / "set")
    trained, held_out, reported = records_of(FineTuneData((name,)))
    assert [[record.where for record in records] for records in (trained, held_out)] == [
        [f"{tmp_path}/set/{part}/annotations.jsonl:1"] for part in ("train", "valid")
    ]
    other = str(write_jsonl(tmp_path / "set" / "test" / "other.jsonl", [LINE] * 3))
    assert len(records_of(FineTuneData((name,), validation=other))[1]) == 3
    assert records_of(FineTuneData((name,), validation=name))[1][0].where.startswith(f"{tmp_path}/set/valid/")
    words = ("train", "-m", "florence-2-demo", "--data", name, "--output", tmp_path / "run", "--precision", "fp32", "--epochs", 1)
    assert command(*words) == 0
    told = capsys.readouterr().err
    assert "the validation loss is measured on" in told
    assert told.count("<loc_1000>") == 1
    assert "2 records with <loc_1000>, which was read as <loc_999>" in told
    assert "1 records, 1 held out" in told
    assert all(line in told for line in reported)


def records_of(data):
    """What a run on these data trains on, what it holds out, and what it reports of them."""
    reported: list[str] = []
    return *read_records(data, Start("florence-2-demo"), 0, Reports(reported.append)), reported


def test_pictures_of_both_parts_are_told(tmp_path, capsys):
    maestro(tmp_path, ["train", "valid"])
    write_jsonl(tmp_path / "valid" / "annotations.jsonl", [{**LINE, "image": "../valid/../train/0.png"}])
    assert command("train", "-m", "florence-2-demo", "--data", tmp_path, "--output", tmp_path / "run") == 2
    assert "1 images are in what is learnt and in what is held out" in capsys.readouterr().err
