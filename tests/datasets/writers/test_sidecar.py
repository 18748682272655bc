"""Texts beside pictures: in a folder of their own as ``imagefolder`` reads it, and beside originals without touching what is not ours."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from florence2.datasets.writers import FORMATS, WriteOptions
from tests.datasets.writers.labelled_sets import contents, labelled_set, thing

write = FORMATS["sidecar"]


@pytest.fixture
def rewrite(tmp_path):
    """What writes a set beside its originals, again and again into the same place, and returns what was written."""

    def run(pictures):
        home, building = tmp_path / "sidecar", tmp_path / "building"
        building.mkdir()
        written = write(labelled_set(pictures), building, WriteOptions(images="leave", home=home))
        for path in home.glob("*"):
            path.unlink()
        home.mkdir(exist_ok=True)
        for path in building.iterdir():
            path.rename(home / path.name)
        building.rmdir()
        return written

    return run


def test_each_picture_has_its_text_beside_it(empty, data):
    written = write(data, empty, WriteOptions())
    texts = {name: content.decode() for name, content in contents(empty).items() if name.endswith(".txt")}
    assert texts["street/one car.txt"] == "=a red car, <b>"
    assert texts["-empty.txt"] == ""
    assert texts["held/out.txt"] == "held out"
    assert sorted(texts.values()) == ["", "=a red car, <b>", "größe, = 🐱", "held out"]
    assert written.notices == ("1 pictures have an empty text, because nothing was said of them and nothing found: -empty.png",)


def test_imagefolder_reads_it(empty, data, load_dataset):
    write(data, empty, WriteOptions(images="copy"))
    found = load_dataset("imagefolder", data_dir=str(empty), split="train")
    assert sorted(found["text"]) == ["", "=a red car, <b>", "größe, = 🐱", "held out"]
    assert found[0]["image"].size == (64, 48)


@pytest.mark.parametrize(
    ("texts", "objects", "expected"),
    [
        ({"<CAPTION>": "short", "<DETAILED_CAPTION>": "longer"}, (), "longer"),
        ({"<CAPTION>": "a\n b"}, (), "a b"),
        ({"<CAPTION>": " ", "<OCR>": "STOP"}, (thing(), thing("bus"), thing()), "car, bus"),
        ({"what is it?": "a sign", "<OCR>": "STOP"}, (thing(),), "a sign"),
        ({"<OCR>": "STOP"}, (), "STOP"),
    ],
)
def test_the_text_is_what_says_most(empty, make_picture, texts, objects, expected):
    write(labelled_set([make_picture(texts=texts, objects=objects)], ["car", "bus"]), empty, WriteOptions())
    assert (empty / "a.txt").read_text() == expected


def test_texts_beside_originals_are_renewed(rewrite, make_picture):
    one = make_picture(texts={"<CAPTION>": "first"})
    rewrite([one])
    assert one.file.with_suffix(".txt").read_text() == "first"
    assert not rewrite([replace(one, texts={"<CAPTION>": "second"})]).problems
    assert one.file.with_suffix(".txt").read_text() == "second"
    assert sorted(path.name for path in one.file.parent.iterdir()) == ["0.png", "0.txt"]


def test_a_text_that_is_not_ours_is_never_overwritten(rewrite, make_picture):
    mine, theirs, changed = (make_picture(f"{name}.png", texts={"<CAPTION>": "ours"}) for name in "abc")
    theirs.file.with_suffix(".txt").write_text("of its user")
    written = rewrite([mine, theirs, changed])
    assert [problem.where for problem in written.problems] == ["originals/b.png"]
    changed.file.with_suffix(".txt").write_text("corrected by hand")
    renewed = [replace(each, texts={"<CAPTION>": "new"}) for each in (mine, theirs, changed)]
    assert len(rewrite(renewed).problems) == 2
    assert [each.file.with_suffix(".txt").read_text() for each in renewed] == ["new", "of its user", "corrected by hand"]


def test_a_run_that_is_killed_leaves_no_text_that_the_next_takes_for_its_user_s(rewrite, tmp_path, make_picture, monkeypatch):
    one, two = (make_picture(f"{name}.png", texts={"<CAPTION>": "first"}) for name in "ab")
    rewrite([one, two])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", interrupted_at(two.file))
        with pytest.raises(KeyboardInterrupt):
            rewrite([replace(each, texts={"<CAPTION>": "second"}) for each in (one, two)])
    shutil.rmtree(tmp_path / "building")
    assert one.file.with_suffix(".txt").read_text() == "second"
    assert not rewrite([replace(each, texts={"<CAPTION>": "third"}) for each in (one, two)]).problems
    assert [each.file.with_suffix(".txt").read_text() for each in (one, two)] == ["third", "third"]


def test_two_pictures_with_one_text_are_told(rewrite, make_picture):
    pictures = [make_picture(f"{name}.png", file_name=f"a.{name}", texts={"<CAPTION>": name}) for name in ("png", "jpg")]
    for _ in range(2):
        assert ["name differs in its ending" in problem.message for problem in rewrite(pictures).problems] == [True]
        assert pictures[0].file.with_suffix(".txt").read_text() == "png"


def test_a_folder_that_can_not_be_written_is_listed(rewrite, make_picture, monkeypatch):
    pictures = [make_picture(f"{name}.png", texts={"<CAPTION>": "ours"}) for name in "ab"]
    replace_file = os.replace

    def refuse(source, target):
        if "/0.txt" in str(target):
            raise PermissionError(13, "Permission denied")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    (problem,) = rewrite(pictures).problems
    assert "Permission denied" in problem.message
    assert sorted(path.name for path in pictures[0].file.parent.iterdir()) == ["0.png", "1.png", "1.txt"]


def interrupted_at(file):
    """``Path.is_file`` that a signal ends when it comes to a file."""

    def is_file(path):
        if path == file:
            raise KeyboardInterrupt
        return os.path.isfile(path)

    return is_file
