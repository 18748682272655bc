"""The page on formats shows the files that are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from florence2.datasets.writers import FORMATS, WriteOptions
from tests.datasets.writers.labelled_sets import contents, labelled_set, thing

PAGE = Path(__file__).resolve().parents[3] / "docs" / "formats.md"
TREES = dict(re.findall(r"### ([a-z-]+)\n\n```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))


def test_every_format_is_on_the_page():
    assert list(TREES) == list(FORMATS)


@pytest.mark.parametrize("form", FORMATS)
def test_the_tree_of_a_format_is_what_is_written(empty, make_picture, form):
    fields = {"objects": (thing(),), "texts": {"<CAPTION>": "a car"}}
    pictures = [make_picture("street/car.jpg", form="JPEG", **fields), make_picture("sign.png")]
    held_out = make_picture("street/bus.jpg", form="JPEG", split="val")
    FORMATS[form](labelled_set([*pictures, held_out]), empty, WriteOptions())
    assert sorted(contents(empty)) == sorted(TREES[form].split("\n")[:-1])
