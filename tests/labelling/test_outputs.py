"""Outputs of a labelling run: whole or not there, the same each time, and never in the place of what is someone else's."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from florence2.datasets import writers
from florence2.datasets.labelled import LabelledSet
from florence2.datasets.record import Problem
from florence2.datasets.writers import WriteOptions, Written
from florence2.errors import DatasetError, InvalidOption
from florence2.labelling.class_names import read_class_map
from florence2.labelling.options import LabelOptions
from florence2.labelling.outputs import check_outputs, keep_options, labelled_set, mend, write_outputs
from florence2.labelling.records import Records
from tests.labelling.journals import answer, boxes, record, write_journal

OPTIONS = LabelOptions(tasks=["od"], formats=["coco"], images="leave")


def found(name: str, label: str = "car", **fields: Any):
    return record(name, answer("<OD>", boxes((label, (10, 10, 50, 60), 0.9))), **fields)


def silent(line: str) -> None:
    """Take a notice."""


def write_names(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
    """A format of two files: one before the pictures are read, and one of their names."""
    (folder / "begun").write_text("")
    (folder / "names").write_text("\n".join(picture.name for picture in data.pictures()))
    return Written(data.num_pictures, 0, ("2 things were left out",))


@pytest.fixture(autouse=True)
def one_format(monkeypatch):
    monkeypatch.setattr(writers, "FORMATS", {"coco": write_names, "csv": write_names})


@pytest.fixture
def run(tmp_path) -> Path:
    return write_journal(tmp_path / "out", OPTIONS.asked, found("b.jpg"), found("a.jpg"))


def names_in(folder: Path, kind: str = "coco") -> list[str]:
    return (folder / kind / "names").read_text().split("\n")


def test_pictures_come_once_by_name_and_an_answer_counts_wherever_it_stands(tmp_path):
    lines = [found(f"p{page}.jpg", part={"page": page}) for page in (10, 9, 2)]
    lines += [record("broken.jpg", error={"code": "invalid_image", "message": "x"}), found("p9.jpg", "bus"), found("broken2.jpg")]
    lines += [record("broken2.jpg", error={"code": "invalid_image", "message": "x"})]
    folder = write_journal(tmp_path, OPTIONS.asked, *lines)
    with (folder / ".florence2" / "journal.jsonl").open("a") as file:
        file.write('{"id": "torn.jpg", "si')
    records = Records(folder)
    assert [one["id"] for one in records] == ["broken2.jpg", "p2.jpg", "p9.jpg", "p10.jpg"]
    assert [one["id"] for one in records.failures()] == records.failed == ["broken.jpg"]
    assert (len(records), records.labelled, records.num_damaged) == (4, [one["id"] for one in records], 0)
    assert labelled_set(folder).classes == ("bus", "car")


def test_shards_are_one_run_and_must_have_been_asked_the_same(tmp_path):
    write_journal(tmp_path, OPTIONS.asked, found("b.jpg"), name="journal-1-of-2.jsonl")
    write_journal(tmp_path, OPTIONS.asked, found("a.jpg"), name="journal-2-of-2.jsonl")
    assert [one["id"] for one in Records(tmp_path)] == ["a.jpg", "b.jpg"]
    write_journal(tmp_path, {**OPTIONS.asked, "num_beams": 3}, name="journal-2-of-2.jsonl")
    with pytest.raises(DatasetError, match="were asked different things: --beams was not given and is 3"):
        Records(tmp_path)


def test_a_folder_without_a_journal_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="there is no journal of florence2 label in"):
        labelled_set(tmp_path)
    (tmp_path / ".florence2").mkdir()
    (tmp_path / ".florence2" / "journal.jsonl").write_text('{"version": 2}\n')
    with pytest.raises(DatasetError, match="no journal that this version of florence2 reads"):
        labelled_set(tmp_path)


def test_a_set_is_read_with_the_options_of_its_run(run):
    assert [thing.label for picture in labelled_set(run).pictures() for thing in picture.objects] == ["car", "car"]
    keep_options(run, LabelOptions(tasks=["od"], class_map=read_class_map(["car=vehicle"])))
    data = labelled_set(run)
    assert (data.classes, data.num_pictures) == (("vehicle",), 2)
    assert [picture.name for picture in data.pictures()] == [picture.name for picture in data.pictures()] == ["a.jpg", "b.jpg"]
    assert data.info["model"] == "florence-2-demo"
    json.dumps(data.info)


def test_formats_are_written_whole_and_again(run):
    lines: list[str] = []
    write_outputs(run, LabelOptions(tasks=["od"], formats=["coco,csv"], min_score=0.95), lines.append)
    assert names_in(run) == names_in(run, "csv") == ["a.jpg", "b.jpg"]
    assert lines == ["left out 2 objects with a score under 0.95", "coco, csv: 2 things were left out"]
    write_journal(run, OPTIONS.asked, found("c.jpg"))
    lines.clear()
    write_outputs(run, OPTIONS, lines.append)
    assert (names_in(run), names_in(run, "csv")) == (["c.jpg"], ["a.jpg", "b.jpg"])
    assert f"csv in {run} was written earlier and is left as before" in lines
    assert sorted(path.name for path in (run / ".florence2").iterdir()) == ["formats.json", "journal.jsonl", "lock-options", "options.json"]


def test_a_name_of_the_class_map_that_nothing_is_called_is_told(run):
    lines: list[str] = []
    write_outputs(run, LabelOptions(tasks=["od"], formats=["coco"], class_map=read_class_map(["CAR=van", "lorry=van"])), lines.append)
    assert lines[0] == "nothing was called 'lorry', which the class map names; the classes are van"


def test_what_is_someone_elses_is_not_replaced(run):
    (run / "coco").mkdir()
    (run / "coco" / "mine").write_text("")
    with pytest.raises(InvalidOption, match="is there and was not made by florence2 label; move it"):
        write_outputs(run, OPTIONS, silent)
    with pytest.raises(InvalidOption, match="was not made by"):
        check_outputs(run, ["csv", "coco"])
    assert (run / "coco" / "mine").exists()


def test_a_run_of_broken_pictures_alone_writes_nothing(tmp_path):
    folder = write_journal(tmp_path, OPTIONS.asked, record("a.jpg", error={"code": "invalid_image", "message": "x"}))
    lines: list[str] = []
    write_outputs(folder, OPTIONS, lines.append)
    assert lines == ["no picture was labelled, and no format is written"]
    assert not (folder / "coco").exists()


def test_corrections_by_hand_are_kept_beside_the_new_folder(run):
    lines: list[str] = []
    write_outputs(run, OPTIONS, lines.append)
    (run / "coco" / "labels.cache").write_text("of a training tool")
    write_outputs(run, OPTIONS, lines.append)
    assert not list(run.glob("coco-*"))
    for kept in ("coco-changed", "coco-changed-2"):
        (run / "coco" / "names").write_text("corrected.jpg")
        lines.clear()
        write_outputs(run, OPTIONS, lines.append)
        assert lines[-2] == f"{run.absolute() / 'coco'} was changed since it was written; it is kept as {run / kept}"
        assert (names_in(run), names_in(run, kept)) == (["a.jpg", "b.jpg"], ["corrected.jpg"])
    (run / "coco" / "notes").mkdir()
    (run / "coco" / "notes" / "mine.txt").write_text("mine")
    write_outputs(run, OPTIONS, lines.append)
    assert (run / "coco-changed-3" / "notes" / "mine.txt").exists()


def test_linked_pictures_that_lose_or_gain_names_are_no_correction_and_one_that_is_removed_is(run, tmp_path, monkeypatch):
    original = tmp_path / "original.png"
    original.write_bytes(b"pixels")

    def linking(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
        os.link(original, folder / "a.png")
        return write_names(data, folder, options)

    monkeypatch.setattr(writers, "FORMATS", {"coco": linking})
    linked = replace(OPTIONS, images="link")
    write_outputs(run, linked, silent)
    os.link(run / "coco" / "names", tmp_path / "backup")
    write_outputs(run, linked, silent)
    original.rename(tmp_path / "moved.png")
    (tmp_path / "moved.png").write_bytes(b"other pixels")
    original.write_bytes(b"pixels")
    write_outputs(run, linked, silent)
    assert not list(run.glob("coco-*"))
    (run / "coco" / "a.png").unlink()
    write_outputs(run, linked, silent)
    assert [path.name for path in run.glob("coco-*")] == ["coco-changed"]


@pytest.mark.parametrize(("images", "is_kept"), [("copy", True), ("link", True), ("leave", False)])
def test_the_last_copies_of_pictures_whose_files_are_gone_are_kept(run, monkeypatch, images, is_kept):
    missing: list[Problem] = []

    def writing(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
        return replace(write_names(data, folder, options), problems=tuple(missing))

    monkeypatch.setattr(writers, "FORMATS", {"coco": writing})
    asked = replace(OPTIONS, images=images)
    lines: list[str] = []
    write_outputs(run, asked, lines.append)
    missing += [Problem(f"{number}.png", "its file is gone") for number in range(7)]
    for _ in range(2):
        lines.clear()
        write_outputs(run, asked, lines.append)
        assert [path.name for path in run.glob("coco-*")] == ["coco-before"] * is_kept
        assert [line for line in lines if "coco: " in line and "thing" not in line] == [
            *(f"coco: {number}.png: its file is gone" for number in range(3)),
            "coco: 4 more pictures are left out for such a reason",
        ]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("of a writer")])
def test_a_format_that_can_not_be_written_stays_as_it_was(run, monkeypatch, error):
    write_outputs(run, OPTIONS, silent)

    def failing(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
        write_names(data, folder, options)
        raise error

    monkeypatch.setattr(writers, "FORMATS", {"coco": failing})
    write_journal(run, OPTIONS.asked, found("c.jpg"))
    with pytest.raises(type(error), match=r"of a writer|No space left on device; the folder is as it was before"):
        write_outputs(run, OPTIONS, silent)
    assert names_in(run) == ["a.jpg", "b.jpg"]
    assert not list((run / ".florence2").glob("building-*"))


class Killed(BaseException):
    """The end of a process at some moment."""


def killed_after(count: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Let the process end after so many changes in the file system; what is called says whether it came so far."""
    left = count

    def counted(change: Callable[..., object]) -> Callable[..., object]:
        def changed(*arguments: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return change(*arguments, **options)

        return changed

    for owner, name in ((Path, "rename"), (Path, "mkdir"), (Path, "write_text"), (Path, "replace"), (shutil, "rmtree")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    return lambda: left < 0


def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path):
    seen: set[str] = set()
    count, is_killed = 0, True
    while is_killed:
        run = write_journal(tmp_path / str(count), OPTIONS.asked, found("old.jpg"))
        write_outputs(run, OPTIONS, silent)
        write_journal(run, OPTIONS.asked, found("new.jpg"))
        with pytest.MonkeyPatch.context() as patched:
            was_killed = killed_after(count, patched)
            with suppress(Killed):
                write_outputs(run, OPTIONS, silent)
            is_killed = was_killed()
        mend(run, silent)
        (name,) = names_in(run)
        seen.add(name)
        assert not [path for path in (run / ".florence2").iterdir() if path.name.startswith(("building", "ready", "old"))]
        write_outputs(run, OPTIONS, silent)
        assert names_in(run) == ["new.jpg"]
        assert not list(run.glob("coco-changed*"))
        count += 1
    assert count > 8
    assert seen == {"old.jpg", "new.jpg"}
