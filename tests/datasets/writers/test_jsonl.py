"""JSONL, read by our own training and by the rules of maestro."""

from __future__ import annotations

import json

import pytest

from florence2.datasets.folders import part_of
from florence2.datasets.reader import read_dataset
from florence2.datasets.writers import FORMATS, WriteOptions
from tests.datasets.writers.labelled_sets import labelled_set

write = FORMATS["jsonl"]


@pytest.mark.parametrize("images", ["link", "copy", "leave"])
def test_our_own_training_reads_the_folder(empty, data, images):
    write(data, empty, WriteOptions(images=images))
    learnt = read_dataset(str(empty))
    assert not learnt.problems
    assert [(record.prompt, record.answers[0]) for record in learnt.records] == [
        ("<OD>", "car<loc_125><loc_125><loc_625><loc_625>"),
        ("<CAPTION>", "a car in the street"),
    ]
    held_out = read_dataset(str(part_of(str(empty), "valid")))
    assert [record.prompt for record in held_out.records] == ["<OD>"]


def test_maestro_s_rules_hold(empty, data):
    """Maestro takes ``train``, ``valid``, each with ``annotations.jsonl``, and pictures by ``image`` beside it; ``prefix``, ``suffix``."""
    write(data, empty, WriteOptions())
    for part in ("train", "valid"):
        lines = (empty / part / "annotations.jsonl").read_text("utf-8").splitlines()
        entries = [json.loads(line) for line in lines]
        assert all(set(entry) == {"image", "prefix", "suffix"} for entry in entries)
        assert all((empty / part / entry["image"]).is_file() for entry in entries)


def test_what_training_would_refuse_is_left_out(empty, make_picture):
    examples = (("<OD>", "a<b<loc_1><loc_1><loc_5><loc_5>"), ("<CAPTION>", "fine"))
    written = write(labelled_set([make_picture(examples=examples)]), empty, WriteOptions())
    assert written.notices == ("1 examples were left out, because their answers can't be learnt as they are: a.png",)
    assert [record.prompt for record in read_dataset(str(empty)).records] == ["<CAPTION>"]
