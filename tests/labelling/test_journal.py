"""The journal of a labelling run: whole lines, one writer, and no answers to other questions."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from florence2.errors import InvalidOption
from florence2.labelling.journal import Journal, open_journal
from florence2.labelling.shards import Shard, parse_shard

ASKED = {"tasks": ["<OD>"]}


def write(folder: Path, *names: str, asked=ASKED, shard: Shard | None = None) -> set[str]:
    """Append records, and return what was labelled before."""
    with open_journal(folder, asked, "model", shard) as journal:
        before = {name for name in "abcd" if journal.holds(name, None)}
        for name in names:
            journal.append({"id": name, "answers": []})
        return before


def test_a_torn_line_is_dropped(tmp_path):
    write(tmp_path, "a", "b")
    path = tmp_path / ".florence2" / "journal.jsonl"
    whole = path.read_bytes()
    for cut in (1, 5, 20):
        path.write_bytes(whole[:-cut])
        assert write(tmp_path, "c") == {"a"}
        assert path.read_text().splitlines()[-1] == '{"id": "c", "answers": []}'
    path.write_bytes(whole + b'{"id": "' + b"x" * 200_000)
    assert write(tmp_path) == {"a", "b"}
    assert path.read_bytes() == whole
    path.write_bytes(whole[:20])  # not even a header
    assert write(tmp_path, "d") == set()
    assert len(path.read_text().splitlines()) == 2


def test_something_else_is_refused_by_name(tmp_path):
    write(tmp_path)
    write(tmp_path, asked={"tasks": ["<OCR>"], "num_beams": 3})  # nothing was answered yet
    write(tmp_path, "a", asked={"tasks": ["<OCR>"], "num_beams": 3})
    with pytest.raises(InvalidOption, match=r"--task was <OCR> and is <OD>; --beams was 3 and is not given\. .*another --output"):
        write(tmp_path)
    with (
        pytest.raises(InvalidOption, match="--model was model and is other"),
        open_journal(tmp_path, {"tasks": ["<OCR>"], "num_beams": 3}, "other"),
    ):
        pass
    with pytest.raises(InvalidOption, match="--task was"):
        write(tmp_path, shard=Shard(1, 2))


def test_one_command_writes_at_a_time(tmp_path):
    with open_journal(tmp_path, ASKED, "model"), pytest.raises(InvalidOption, match="another command is labelling this run"):
        write(tmp_path)
    with pytest.raises(InvalidOption, match="another command"), open_journal(tmp_path, ASKED, "model"):
        write(tmp_path, shard=Shard(1, 2))
    with open_journal(tmp_path, ASKED, "model", Shard(1, 2)):
        write(tmp_path, "b", shard=Shard(2, 2))
        for shard in (None, Shard(1, 2)):
            with pytest.raises(InvalidOption, match="another command"):
                write(tmp_path, shard=shard)
    assert write(tmp_path) == {"b"}


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(InvalidOption, match=r"holds other things than a labelling run \(photo.jpg\)"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
    with pytest.raises(InvalidOption, match="is no folder"):
        write(tmp_path / "photo.jpg" / "out")
    (tmp_path / "photo.jpg").rename(tmp_path / ".DS_Store")
    write(tmp_path)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    class Full:
        """Takes half of the next line."""

        def __init__(self, file) -> None:
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, line: bytes) -> int:
            self.file.write(line[: len(line) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    with open_journal(tmp_path, ASKED, "model") as journal:
        journal.append({"id": "a", "answers": []})
        monkeypatch.setattr(journal, "_file", Full(journal._file))
        with pytest.raises(OSError, match="No space left on device; all answers before this one are kept"):
            journal.append({"id": "b", "answers": []})
    assert (tmp_path / ".florence2" / "journal.jsonl").read_text().count("\n") == 2
    assert write(tmp_path) == {"a"}


def test_lines_are_whole_whatever_is_in_them(tmp_path):
    record = {"id": "a\udcff\n\u2028.jpg", "answers": [{"text": "한국어 \x00"}]}
    with open_journal(tmp_path, ASKED, "model") as journal:
        journal.append(record)
    lines = (tmp_path / ".florence2" / "journal.jsonl").read_bytes().split(b"\n")
    assert json.loads(lines[1]) == record
    assert lines[2:] == [b""]
    assert isinstance(journal, Journal)


def test_shards_share_all_and_keep_the_parts_of_a_file_together():
    names = [f"photos/{number}.jpg" for number in range(500)]
    shards = [parse_shard(f"{number}/7") for number in range(1, 8)]
    held = [[name for name in names if shard.holds(name)] for shard in shards]
    assert sorted(name for part in held for name in part) == sorted(names)
    assert min(map(len, held)) > 40
    (home,) = [shard for shard in shards if shard.holds("doc.pdf")]
    assert all(home.holds(f"doc.pdf{part}") for part in ("#page=3", "#frame=12", "#t=4.000"))
    assert [shard.number for shard in shards if shard.holds("photos/0.jpg")] == [5]  # on every machine
