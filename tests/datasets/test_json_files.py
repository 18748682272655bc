"""Files are read for what they hold: in any Unicode encoding, and whatever their names end with."""

from __future__ import annotations

import codecs
import json

import pytest

from florence2.datasets.reader import read_dataset
from florence2.errors import DatasetError
from tests.training.sets import write_coco, write_pictures

LINES = [{"image": f"{number}.png", "prompt": "<CAPTION>", "answer": answer} for number, answer in enumerate(("ä", "猫", "c"))]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"]


def as_lines(line_end="\n"):
    return line_end.join(json.dumps(line, ensure_ascii=False) for line in LINES) + line_end


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["set.jsonl", "set.json", "SET.JSON", "set.ndjson"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_lines_are_read(tmp_path, encoding, name, line_end):
    write_pictures(tmp_path)
    (tmp_path / name).write_bytes(as_lines(line_end).encode(encoding))
    records = read_dataset(str(tmp_path / name)).sound()
    assert [record.answers[0] for record in records] == ["ä", "猫", "c"]
    assert [record.where for record in records] == [f"{tmp_path / name}:{number}" for number in (1, 2, 3)]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_coco_is_read(tmp_path, encoding):
    path = write_coco(tmp_path / "coco.json", categories=[{"id": 5, "name": "Kätzchen"}, {"id": 7, "name": "犬"}])
    path.write_bytes(json.dumps(json.loads(path.read_text()), ensure_ascii=False, indent=1).encode(encoding))
    assert read_dataset(str(path)).sound()[0].truth.labels == ("犬", "Kätzchen")


def test_a_list_and_a_single_line_are_read(tmp_path):
    write_pictures(tmp_path)
    path = tmp_path / "set.json"
    path.write_text(json.dumps([*LINES, 7, {"prompt": "<OD>"}], indent=1))
    data = read_dataset(str(path))
    assert [record.answers[0] for record in data.records] == ["ä", "猫", "c"]
    assert [problem.where for problem in data.problems] == [f"{path}: entry 4", f"{path}: entry 5"]
    path.write_text(json.dumps(LINES[0]))
    assert len(read_dataset(str(path)).sound()) == 1


def test_a_bad_first_line_is_told_as_one_line(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "set.json").write_text("{\n" + as_lines())
    data = read_dataset(str(tmp_path / "set.json"))
    assert (len(data.records), [problem.where for problem in data.problems]) == (3, [f"{tmp_path}/set.json:1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (codecs.BOM_UTF16_LE + b'{\0"\0x', "is not UTF-16"),
        (b'{"images": "\xe4"}', "is not UTF-8"),
        (b"{", "is no JSON"),
        (b"[]", "no COCO detection file"),
        (b"7", "no COCO detection file"),
        (b'{"images": [], "annotations": []}', "no COCO detection file"),
    ],
)
def test_what_can_not_be_read_is_told(tmp_path, content, message):
    (tmp_path / "set.json").write_bytes(content)
    with pytest.raises(DatasetError, match=f"set.json {message}|set.json is {message}"):
        read_dataset(str(tmp_path / "set.json"))


def test_damaged_lines_are_told(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "set.jsonl").write_bytes(as_lines().encode() + b'{"image": "\xff"}\n')
    assert "not UTF-8 (byte 11 of the line is 0xff)" in read_dataset(str(tmp_path / "set.jsonl")).problems[0].message
    (tmp_path / "set.jsonl").write_bytes(as_lines().encode("utf-16")[:-1])
    with pytest.raises(DatasetError, match="is not UTF-16"):
        read_dataset(str(tmp_path / "set.jsonl"))
