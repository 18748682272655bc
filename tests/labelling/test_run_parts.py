"""Runs whose folder holds parts, a journal, or both: each command reads what the other has written, and goes on with it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence2.errors import DatasetError, InvalidOption, MissingExtra
from florence2.labelling.journal import is_run, open_journal, open_parts
from florence2.labelling.options import LabelOptions
from florence2.labelling.outputs import labelled_set
from florence2.labelling.parts import HEADER, parts_in
from florence2.labelling.records import Records, answered_in
from florence2.labelling.run import rebuild
from florence2.labelling.shards import Shard
from florence2.server.label_viewer.folder import source_of
from tests.labelling.journals import write_journal
from tests.labelling.standing_in import OD, StandIn, draw_pictures, journal_lines, run
from tests.labelling.test_parts import failed, labelled

OPTIONS = LabelOptions(tasks=("od",), formats=("jsonl", "coco"), val_share=0)
MODEL = "stand-in"


def write_parts(output: Path, *files: list[dict[str, Any]], options: LabelOptions = OD) -> None:
    """Write parts as a run with many workers does."""
    with open_parts(str(output), options.asked, MODEL) as parts:
        for records in files:
            parts.write(records)


def moved_into_parts(output: Path, size: int) -> None:
    """Turn the journal of a run into parts of so many pictures."""
    lines = journal_lines(output)
    (output / ".florence2" / "journal.jsonl").unlink()
    write_parts(output, *(lines[start : start + size] for start in range(0, len(lines), size)), options=OPTIONS)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_of_parts_is_the_same_data_set_as_one_of_a_journal(tmp_path: Path) -> None:
    pictures, output = draw_pictures(tmp_path / "in", 12), tmp_path / "out"
    (pictures / "0003.png").write_bytes(b"no picture")
    run(pictures, output, StandIn(), OPTIONS)
    expected = {name: contents(output / name) for name in OPTIONS.formats}
    shown, problems = map(list, (labelled_set(output).pictures(), source_of(output).read()[1]))
    moved_into_parts(output, 5)
    for name in OPTIONS.formats:
        shutil.rmtree(output / name)
    (output / ".florence2" / "formats.json").unlink()
    summary = rebuild(output)
    assert {name: contents(output / name) for name in OPTIONS.formats} == expected
    assert (summary.num_pictures, summary.num_problems) == (11, 1)
    again, problems_again = source_of(output).read()
    assert (list(again.pictures()), list(problems_again)) == (shown, problems)
    assert [path.name for path in (output / ".florence2").iterdir() if path.name.startswith("tmp")] == []


def test_each_command_goes_on_with_what_the_other_wrote(tmp_path: Path) -> None:
    pictures, output, model = draw_pictures(tmp_path / "in", 6), tmp_path / "out", StandIn()
    run(pictures, output, model, OPTIONS, limit=4)
    lines = journal_lines(output)
    moved_into_parts(output, 3)
    run([str(path) for path in sorted(pictures.iterdir())], output, model, OPTIONS)  # under other names
    assert model.widths == [20, 21, 22, 23, 24, 25]
    assert len(journal_lines(output)) == 3  # which parts were there before, and two pictures
    answered = answered_in(output)
    assert len(answered) == 6
    assert [answered.holds(line["id"], line["path"]) for line in lines] == [True] * 4
    assert all(answered.holds("another name", str(path)) for path in sorted(pictures.iterdir()))
    run(pictures, output, model, OPTIONS)
    assert len(model.asked) == 6


def test_the_later_answer_counts_wherever_it_stands(tmp_path: Path) -> None:
    pictures, output, model = draw_pictures(tmp_path / "in", 2), tmp_path / "out", StandIn()
    file = pictures / "0000.png"

    def size_of(count: int) -> list[tuple[int, int]]:
        sizes = [tuple(record["size"]) for record in Records(output)]
        held = answered_in(output)
        assert all(held.holds(record["id"], record["path"]) for record in Records(output))
        run(pictures, output, model, OPTIONS)
        assert len(model.asked) == count  # nothing is asked again
        return sizes  # type: ignore[return-value]

    run(pictures, output, model, OPTIONS)
    moved_into_parts(output, 1)
    for width in (50, 60):
        Image.new("RGB", (width, width), "red").save(file)
        assert not answered_in(output).holds(str(file), str(file))
        run(pictures, output, model, OPTIONS)  # a journal after parts
        assert size_of(2 + width // 10 - 4) == [(width, width), (21, 16)]
    Image.new("RGB", (70, 70), "blue").save(file)
    changed = {**next(iter(Records(output))), "size": [70, 70], "num_bytes": file.stat().st_size}
    write_parts(output, [changed], options=OPTIONS)  # and parts after the journal
    assert size_of(4) == [(70, 70), (21, 16)]
    Image.new("RGB", (80, 80), "green").save(file)
    run(pictures, output, model, OPTIONS)
    assert size_of(5) == [(80, 80), (21, 16)]


def test_answers_count_before_errors_in_both_directions(tmp_path: Path) -> None:
    write_journal(tmp_path, OD.asked, labelled("a"), failed("b"), failed("c"))
    parts = parts_in(tmp_path)
    parts.begin(OD.asked, MODEL)
    parts.write([failed("a"), labelled("b"), failed("d")])
    records = Records(tmp_path)
    assert (records.labelled, records.failed) == (["a", "b"], ["c", "d"])
    assert [record["id"] for record in records] == ["a", "b"]
    assert [record["id"] for record in records.failures()] == ["c", "d"]
    assert [name in answered_in(tmp_path) for name in "abcd"] == [True, True, False, False]
    assert [record["id"] for record in records] == ["a", "b"]


def test_records_of_parts_come_in_the_order_of_their_names_however_they_lie(tmp_path: Path) -> None:
    order = [f"p{number * 37 % 300}.jpg" for number in range(300)]
    write_parts(tmp_path, *([labelled(name, label=name) for name in order[start : start + 30]] for start in range(0, 300, 30)))
    records = Records(tmp_path)
    first, second = iter(records), iter(records)
    next(first)
    assert [one["id"] for one in second] == [f"p{number}.jpg" for number in range(300)]
    assert [one["answers"][0]["response"]["<OD>"]["labels"] for one in first] == [[f"p{number}.jpg"] for number in range(1, 300)]


def test_something_else_is_refused_whichever_of_the_two_was_first(tmp_path: Path) -> None:
    write_parts(tmp_path / "parts")  # begun, and nothing answered
    assert is_run(tmp_path / "parts")
    with open_journal(tmp_path / "parts", {"tasks": ["<OCR>"]}, MODEL):
        pass
    write_parts(tmp_path / "parts", [labelled("a")])
    with (
        pytest.raises(InvalidOption, match=r"--task was <OD> and is <OCR>\. Go on"),
        open_journal(tmp_path / "parts", {"tasks": ["<OCR>"]}, MODEL),
    ):
        pass
    with open_journal(tmp_path / "journal", OD.asked, MODEL) as journal:
        journal.append(labelled("a"))
    with pytest.raises(InvalidOption, match="--model was stand-in and is other"), open_parts(str(tmp_path / "journal"), OD.asked, "other"):
        pass
    stray = parts_in(tmp_path / "journal")
    stray.begin({"tasks": ["<OCR>"]}, MODEL)
    stray.write([labelled("b")])
    with pytest.raises(DatasetError, match="were asked different things: --task was <OD> and is <OCR>"):
        Records(tmp_path / "journal")


def test_one_command_writes_at_a_time(tmp_path: Path) -> None:
    with (
        open_parts(str(tmp_path), OD.asked, MODEL),
        pytest.raises(InvalidOption, match="another command is labelling this run"),
        open_journal(tmp_path, OD.asked, MODEL),
    ):
        pass
    with (
        open_journal(tmp_path, OD.asked, MODEL, Shard(1, 2)),
        pytest.raises(InvalidOption, match="another command"),
        open_parts(str(tmp_path), OD.asked, MODEL),
    ):
        pass
    with open_journal(tmp_path, OD.asked, MODEL, Shard(1, 2)), open_parts(str(tmp_path), OD.asked, MODEL, Shard(2, 2)) as parts:
        parts.write([labelled("a")])
    draw_pictures(tmp_path / "in", 1)
    with pytest.raises(InvalidOption, match="holds other things than a labelling run"), open_parts(str(tmp_path / "in"), OD.asked, MODEL):
        pass


def test_a_run_that_is_being_written_can_be_looked_at(tmp_path: Path) -> None:
    with open_parts(str(tmp_path), OD.asked, MODEL) as parts:
        source = source_of(tmp_path)
        before = source.stamp()
        assert source.read()[0].num_pictures == 0
        parts.write([labelled("a"), failed("b")])
        (Path(parts.folder) / ".unfinished-1").write_bytes(b"half")
        assert source.stamp() != before
        data, problems = source.read()
        assert (data.num_pictures, [problem.name for problem in problems]) == (1, ["b"])
    with open_parts(str(tmp_path), OD.asked, MODEL) as parts:
        assert sorted(path.name for path in Path(parts.folder).iterdir()) == [HEADER, *parts.names()]
    (Path(parts.folder) / ".unfinished-2").write_bytes(b"half")
    with open_journal(tmp_path, OD.asked, MODEL):
        assert sorted(path.name for path in Path(parts.folder).iterdir()) == [HEADER, *parts.names()]


def test_damaged_parts_are_told_and_asked_about_again(tmp_path: Path) -> None:
    pictures, output, model = draw_pictures(tmp_path / "in", 4), tmp_path / "out", StandIn()
    run(pictures, output, model, OPTIONS)
    moved_into_parts(output, 2)
    cut = Path(parts_in(output).folder) / parts_in(output).names()[0]
    cut.write_bytes(cut.read_bytes()[:-20])
    lines: list[str] = []
    rebuild(output, on_message=lines.append)
    summary = run(pictures, output, model, OPTIONS, on_message=lines.append)
    assert len([line for line in lines if line.startswith(f"passed over {cut.name}, which is damaged: ")]) == 2
    assert (summary.num_pictures, len(model.asked)) == (4, 6)


def test_a_run_whose_parts_are_all_damaged_says_so_and_begins_anew(tmp_path: Path) -> None:
    write_parts(tmp_path, [labelled("a")])
    folder = Path(parts_in(tmp_path).folder)
    (folder / HEADER).unlink()
    (folder / parts_in(tmp_path).names()[0]).write_bytes(b"PAR1")
    with pytest.raises(
        DatasetError, match=r"no part of the run in .* can be read \(passed over part-00001-.*: .*\); give the same command again"
    ):
        Records(tmp_path)
    write_parts(tmp_path, [labelled("b")])
    assert Records(tmp_path).labelled == ["b"]


def test_a_part_that_goes_while_it_is_read_ends_in_an_error(tmp_path: Path) -> None:
    write_parts(tmp_path, [labelled("a")], [labelled("b")])
    records, data = Records(tmp_path), labelled_set(tmp_path, OD)
    (Path(parts_in(tmp_path).folder) / parts_in(tmp_path).names()[1]).unlink()
    with pytest.raises(DatasetError, match="has gone or changed while it was read; give the same command again"):
        list(records)
    assert [picture.name for picture in data.pictures()] == ["a", "b"]  # read before


def test_pictures_that_were_not_kept_are_looked_for_by_their_names(tmp_path: Path) -> None:
    names = ("x/a.png", "b.png")
    records = [{**labelled(f"s3://bucket/{name}"), "path": None, "url": f"s3://bucket/{name}", "name": name} for name in names]
    write_parts(tmp_path, records)
    (tmp_path / "pictures" / "x").mkdir(parents=True)
    Image.new("RGB", (640, 480)).save(tmp_path / "pictures" / "x" / "a.png")
    lines: list[str] = []
    assert rebuild(tmp_path, OPTIONS, on_message=lines.append).num_pictures == 2
    assert [line for line in lines if "coco" in line and "pictures/b.png" in line]
    described = json.loads((tmp_path / "coco" / "train" / "_annotations.coco.json").read_text())
    assert [one["file_name"] for one in described["images"]] == ["x/a.png"]


def test_a_run_without_parts_needs_no_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_journal(tmp_path, OD.asked, labelled("a"))
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    assert is_run(tmp_path)
    assert Records(tmp_path).labelled == ["a"]
    assert len(answered_in(tmp_path)) == 1
    (tmp_path / ".florence2" / "parts").mkdir()
    (tmp_path / ".florence2" / "parts" / "part-00001-x.parquet").touch()
    with pytest.raises(MissingExtra, match=r"a labelling run in Parquet needs the extra 'parquet'"):
        Records(tmp_path)


def test_a_journal_says_which_parts_were_before_it_only_where_there_are_some(tmp_path: Path) -> None:
    with open_journal(tmp_path, OD.asked, MODEL) as journal:
        journal.append(labelled("a"))
    assert [line["id"] for line in journal_lines(tmp_path)] == ["a"]
    write_parts(tmp_path, [labelled("b")])
    for name in "cd":
        with open_journal(tmp_path, OD.asked, MODEL) as journal:
            journal.append(labelled(name))
    said = [line.get("id") or line for line in journal_lines(tmp_path)]
    assert said == ["a", {"after": parts_in(tmp_path).names()[0]}, "c", "d"]
    assert json.dumps(Records(tmp_path).labelled) == '["a", "b", "c", "d"]'
    assert Records(tmp_path).num_damaged == 0
