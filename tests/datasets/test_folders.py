"""Folders as Roboflow, maestro and users of autodistill have them, and which part of one is learnt, held out or measured on."""

from __future__ import annotations

import shutil

import pytest

from florence2.datasets.folders import file_of, part_of
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
    assert ("train" in learnt.name, "test" in measured.name, "valid" in (part_of(str(tmp_path), "valid") or "")) == (True, True, True)
    assert {record.where.split(".json")[0] for record in learnt.records} == {learnt.name.split(".json")[0]}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["valid", "val", "validation"])
def test_what_is_measured_on_is_valid_where_there_is_no_test(tmp_path, layout, name):
    layout(tmp_path, ["train", name])
    assert name in read_dataset(str(tmp_path), for_training=False).name


def test_a_folder_without_parts_is_its_only_file(tmp_path):
    write_coco(tmp_path / "train" / "_annotations.coco.json")
    (tmp_path / "train" / "notes.json").write_text("{}")
    for for_training in (True, False):
        assert len(read_dataset(str(tmp_path / "train"), for_training=for_training).sound()) == 2


def test_what_is_missing_or_ambiguous_is_told(tmp_path):
    with pytest.raises(DatasetError, match="has no train: there is no data file in it"):
        read_dataset(str(tmp_path))
    maestro(tmp_path, ["train"])
    with pytest.raises(DatasetError, match="has no test or valid: it has train"):
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
        file_of(str(tmp_path), ("train",))


def test_what_is_no_folder_is_itself():
    assert file_of("synthetic:3", ("train",)) == "synthetic:3"
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
