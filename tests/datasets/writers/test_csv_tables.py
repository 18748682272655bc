"""CSV tables, read by pandas and by Python's own reader."""

from __future__ import annotations

import csv
import json
from typing import Any

import pandas
import pytest

from florence2.datasets.writers import FORMATS, WriteOptions
from tests.datasets.writers.labelled_sets import CLASSES, labelled_set

write = FORMATS["csv"]


def test_pandas_reads_both_tables(empty, data, pictures):
    written = write(data, empty, WriteOptions())
    captions: Any
    objects: Any
    captions, objects = (pandas.read_csv(empty / f"{name}.csv", keep_default_na=False) for name in ("captions", "objects"))
    assert list(captions["name"]) == ["street/one car.jpg", pictures[1].name, "'-empty.png", "held/out.png"]
    assert captions["<CAPTION>"][0] == "a car\nin the street"
    assert captions["<MORE_DETAILED_CAPTION>"][0] == "'=a red car, <b>"
    assert list(objects["label"]) == ["car", CLASSES[1], CLASSES[2], "car"]
    assert list(objects["text"])[1] == 'STOP, = "x"'
    assert len(json.loads(objects["polygons"][2])) == 2
    assert written.notices[0].startswith("2 texts that a spreadsheet would run as a formula")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("@SUM(1)", "'@SUM(1)"),
        ("-5.50 %", "-5.50 %"),
        ("+49 170", "'+49 170"),
        ("\t=1", "'\t=1"),
        ("a=b", "a=b"),
        ("zero\0\x1b", "zero\ufffd\ufffd"),
        ('a "quoted", text\r\nand a line', 'a "quoted", text\r\nand a line'),
    ],
)
def test_no_cell_is_run_as_a_formula(empty, make_picture, text, cell):
    write(labelled_set([make_picture(texts={"<OCR>": text})]), empty, WriteOptions())
    assert (empty / "captions.csv").read_bytes().startswith(b"\xef\xbb\xbfname,")
    with (empty / "captions.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [row["<OCR>"] for row in csv.DictReader(file)] == [cell]
