"""Folders of label runs, and folders that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from florence2.errors import InvalidOption
from florence2.labelling.options import LabelOptions
from florence2.server.label_viewer.folder import source_of
from florence2.server.label_viewer.run import Run
from tests.labelling.journals import answer, boxes, record, write_journal

OPTIONS = LabelOptions(tasks=["od"])


def found(name: str) -> dict[str, object]:
    return record(name, answer("<OD>", boxes(("car", (10, 10, 50, 60), 0.9))))


def test_labelled_pictures_and_problems_of_a_run_that_goes_on(tmp_path: Path) -> None:
    torn = record("torn.jpg", error={"code": "invalid_image", "message": "the image is damaged"})
    folder = write_journal(tmp_path / "out", OPTIONS.asked, found("a.jpg"), torn)
    run = Run(source_of(folder))
    first = run.summary()
    assert (first["title"], first["num_labelled"], first["num_problems"]) == ("out", 1, 1)
    assert [one["name"] for one in first["classes"]] == ["car"]
    (problem,) = run.index(first["version"]).records([1])
    assert (problem["name"], problem["problem"], problem["where"]) == ("torn.jpg", "the image is damaged", "/pictures/torn.jpg")
    write_journal(folder, OPTIONS.asked, found("b.jpg"), name="journal-2-of-2.jsonl")
    assert run.has_changed
    assert run.summary()["num_labelled"] == 2
    assert not run.has_changed


def test_folders_that_are_none_are_refused_with_what_to_give(tmp_path: Path) -> None:
    run = write_journal(tmp_path / "out", OPTIONS.asked, found("a.jpg"))
    (run / "coco").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for folder, words in (
        (tmp_path / "missing", "is not there; give the folder that florence2 label had as --output"),
        (tmp_path / "file", "is no folder"),
        (tmp_path / "empty", r"neither \.florence2/journal\.jsonl nor \.florence2/parts in it; give the folder"),
        (run / "coco", rf"did you mean {run}\?"),
        (tmp_path, rf"did you mean {run}\?"),
    ):
        with pytest.raises(InvalidOption, match=words):
            source_of(folder)
