"""WebDataset shards, read by ``webdataset`` itself and by Hugging Face's ``datasets``."""

from __future__ import annotations

import tarfile
from typing import Any

import pytest
from webdataset.compat import WebDataset

from florence2.datasets.writers import FORMATS, WriteOptions
from florence2.datasets.writers import webdataset as writer
from tests.datasets.writers.labelled_sets import labelled_set, thing

# The reader leaves its files to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
write = FORMATS["webdataset"]


def samples(path):
    reader: Any = WebDataset(str(path), shardshuffle=False, empty_check=False)
    return list(reader.decode("pil"))


def test_webdataset_reads_it(empty, data, pictures):
    written = write(data, empty, WriteOptions())
    assert sorted(path.name for path in empty.glob("*.tar")) == ["train-000000.tar", "valid-000000.tar"]
    found = samples(empty / "train-000000.tar")
    assert [sample["json"]["name"] for sample in found] == [each.name for each in pictures[:3]]
    assert [sample["__key__"] for sample in found] == ["000000000", "000000001", "000000002"]
    assert all(sample["jpg"].size == (64, 48) for sample in found)
    assert found[0]["txt"] == "=a red car, <b>"
    assert found[0]["json"]["objects"][0]["box"] == [8, 6, 40, 30]
    assert any(line.startswith("3 pictures were written anew as JPEG") for line in written.notices)


def test_datasets_reads_it(empty, data, load_dataset):
    write(data, empty, WriteOptions())
    found = load_dataset(str(empty))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 3, "validation": 1}
    assert found["train"][0]["jpg"].size == (64, 48)
    assert found["train"][0]["json"]["objects"][0]["label"] == "car"


def test_datasets_reads_it_where_the_first_pictures_have_no_objects(empty, make_picture, load_dataset):
    pictures = [make_picture(f"{number}.png", objects=(thing(),) * (number > 6)) for number in range(9)]
    write(labelled_set(pictures), empty, WriteOptions())
    found = load_dataset(str(empty), split="train")
    assert found[8]["json"]["objects"][0]["label"] == "car"


def test_shards_are_bounded(empty, make_picture, monkeypatch):
    monkeypatch.setattr(writer, "MOST_SAMPLES", 2)
    write(labelled_set([make_picture(f"{number}.png") for number in range(5)]), empty, WriteOptions())
    assert [len(samples(path)) for path in sorted(empty.glob("*.tar"))] == [2, 2, 1]
    assert samples(empty / "train-000000.tar")[0]["png"].size == (64, 48)


def test_headers_hold_no_times_and_no_owners(empty, data):
    write(data, empty, WriteOptions())
    with tarfile.open(empty / "train-000000.tar") as tar:
        assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in tar} == {(0, 0, 0, "", 0o644)}


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_pictures_of_one_format_stay_as_they_are(empty, make_picture, form):
    picture = make_picture(form=form)
    write(labelled_set([picture]), empty, WriteOptions())
    with tarfile.open(empty / "train-000000.tar") as tar:
        member = tar.extractfile(tar.getmembers()[0])
        assert member is not None
        assert member.read() == picture.file.read_bytes()
