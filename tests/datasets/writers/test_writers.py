"""What holds for every format: the same bytes each time, nothing at all, anything in a text, pictures that are gone, and little memory."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from florence2.datasets.labelled import LabelledPicture, LabelledSet
from florence2.datasets.writers import FORMATS, WriteOptions
from florence2.errors import DatasetError
from tests.datasets.writers.labelled_sets import contents, labelled_set, picture_bytes, thing

ALL = pytest.mark.parametrize("form", FORMATS)
HOSTILE = st.text(st.characters(blacklist_categories=())) | st.text("<>&\"',=:;|\\/\n\r\t\0\x1b\ufffe\ud800 ]]>{}%#-@", max_size=20)


@pytest.mark.parametrize("images", ["link", "copy", "leave"])
@ALL
def test_the_same_set_is_the_same_files_byte_for_byte(tmp_path, data, form, images):
    found = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        written = FORMATS[form](data, folder, WriteOptions(images=images, home=tmp_path / "home"))
        found.append((contents(folder), written))
        assert (written.num_pictures, written.num_objects, written.problems) == (4, 4, ())
    assert found[0] == found[1]


@ALL
def test_nothing_at_all_is_a_data_set_without_pictures(empty, form):
    written = FORMATS[form](labelled_set([], []), empty, WriteOptions())
    assert (written.num_pictures, written.num_objects, written.notices, written.problems) == (0, 0, (), ())
    check_readable(empty)


@ALL
def test_pictures_without_objects_and_a_set_without_classes(empty, form, make_picture):
    written = FORMATS[form](labelled_set([make_picture("a.png"), make_picture("b.png")], []), empty, WriteOptions())
    assert (written.num_pictures, written.num_objects) == (2, 0)
    check_readable(empty)


@ALL
def test_a_picture_that_is_gone_or_has_changed_is_listed_and_the_others_are_written(empty, form, data, pictures):
    pictures[0].file.unlink()
    pictures[1].file.write_bytes(picture_bytes((32, 32)))
    written = FORMATS[form](data, empty, WriteOptions())
    if form == "csv":  # it needs no pictures
        assert written.num_pictures == 4
        return
    assert (written.num_pictures, written.num_objects) == (2, 1)
    gone, changed = written.problems
    assert gone.where == "originals/street/one car.jpg"
    assert "No such file" in gone.message
    assert "it had 64 x 48 pixels when it was labelled, now 32 x 32" in changed.message
    check_readable(empty)


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "csv"])
def test_where_all_pictures_are_gone_no_empty_data_set_replaces_the_last_one(empty, form, data, pictures):
    shutil.rmtree(pictures[0].file.parent)
    with pytest.raises(DatasetError, match="none of the 4 pictures can be written"):
        FORMATS[form](data, empty, WriteOptions())


@ALL
def test_no_list_of_pictures_is_held(empty, form, make_picture):
    one, alive, most = make_picture(objects=(thing(),), texts={"<CAPTION>": "a"}), [], 0

    def pictures():
        nonlocal most
        for number in range(100):
            picture = replace(one, name=f"{number}.png")
            alive.append(weakref.ref(picture))
            most = max(most, sum(each() is not None for each in alive))
            yield picture
            del picture

    FORMATS[form](LabelledSet(pictures, ["car"], 100), empty, WriteOptions())
    assert most < 5


@pytest.fixture(scope="module")
def png(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("originals") / "a.png"
    file.write_bytes(picture_bytes())
    return file


@ALL
@given(label=HOSTILE, text=HOSTILE, name=HOSTILE, prompt=HOSTILE)
@example(label="]]>", text="\ud800", name="CON", prompt="<OCR>")
@example(label="car", text="\x00", name="../../up", prompt="\r\n")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_written_so_that_readers_read_it(form, png, label, text, name, prompt):
    picture = LabelledPicture(
        f"{name}.png",
        png,
        (64, 48),
        objects=(thing(label, text=text, score=0.5), thing("car", polygons=((1.0, 1.0, 9.0, 1.0, 9.0, 9.0),))),
        texts={prompt: text},
        examples=((prompt, text),),
        where=name,
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "written"
        folder.mkdir()
        written = FORMATS[form](labelled_set([picture], list(dict.fromkeys((label, "car")))), folder, WriteOptions())
        assert written.num_pictures == 1
        assert [path.name for path in Path(place).iterdir()] == ["written"]
        check_readable(folder)


def members_of(content: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return tar.getnames()


def check_readable(folder: Path) -> None:
    """Let the parser of each kind of file read all of them."""
    readers = {
        ".json": lambda content: json.loads(content.decode()),
        ".jsonl": lambda content: [json.loads(line) for line in content.decode().split("\n") if line],
        ".xml": ElementTree.fromstring,
        ".yaml": lambda content: yaml.safe_load(content.decode()),
        ".parquet": lambda content: parquet.read_table(io.BytesIO(content)).to_pylist(),
        ".csv": lambda content: list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)),
        ".tar": members_of,
        ".txt": bytes.decode,
    }
    found = contents(folder)
    for name, content in found.items():
        if Path(name).suffix in readers:
            readers[Path(name).suffix](content)
