"""Contact sheets: what is on them, how many there are, and what becomes of pictures that can't be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.labelled_scenes import labelled_scenes, set_of
from florence2.datasets.labelled import LabelledObject, LabelledPicture
from florence2.draw.marks import colour_of
from florence2.errors import InvalidImage
from florence2.labelling import contact_sheets
from florence2.labelling.contact_sheets import write_contact_sheets
from florence2.labelling.thumbnails import read_thumbnail, words_of


def test_the_sheets_are_bounded_the_same_each_time_and_replace_those_before(tmp_path: Path) -> None:
    pictures = labelled_scenes(tmp_path / "pictures", 70, num_files=3)
    folder = tmp_path / "run" / "preview"
    written = write_contact_sheets(set_of(pictures), folder, num_pictures=50, seed=3)
    assert [path.name for path in written] == ["sheet-001.jpg", "sheet-002.jpg", "sheet-003.jpg"]
    before = [path.read_bytes() for path in written]
    (folder / "notes.txt").write_text("mine")
    assert [path.read_bytes() for path in write_contact_sheets(set_of(pictures), folder, num_pictures=50, seed=3)] == before
    assert write_contact_sheets(set_of(pictures), folder, num_pictures=50, seed=4)[0].read_bytes() != before[0]
    write_contact_sheets(set_of(pictures[:5]), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "sheet-001.jpg"]


def test_the_heading_says_what_was_counted_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    sheet = contact_sheets._sheet
    monkeypatch.setattr(contact_sheets, "_sheet", lambda page, *words: (said.extend(words[:2]), sheet(page, *words))[1])
    pictures = labelled_scenes(tmp_path / "pictures", 30, num_files=2)
    write_contact_sheets(set_of(pictures), tmp_path / "holiday" / "preview", num_pictures=10)
    assert said[0] == "holiday · 30 pictures, 10 of them drawn at random (seed 0) · sheet 1 of 1"
    num_objects = sum(len(picture.objects) for picture in pictures)
    assert said[1].startswith(f"{num_objects} objects: ")
    write_contact_sheets(set_of([]), tmp_path / "none" / "preview")
    assert said[2:] == ["none · 0 pictures · sheet 1 of 1", "nothing is labelled yet"]


def test_outlines_are_drawn_where_the_labels_are_in_the_class_colour(tmp_path: Path) -> None:
    file = tmp_path / "white.png"
    Image.new("RGB", (800, 600), "white").save(file)
    found = LabelledObject("cat", (200.0, 150.0, 600.0, 450.0))
    picture = LabelledPicture("white.png", file, (800, 600), (found,))
    (path,) = write_contact_sheets(set_of([picture], ["dog", "cat"]), tmp_path / "preview")
    pixels = np.asarray(Image.open(path)).astype(int)
    colour = [int(colour_of(1)[start : start + 2], 16) for start in (1, 3, 5)]
    ys, xs = np.nonzero((abs(pixels - colour) < 40).all(2))
    assert abs((xs.max() - xs.min()) - contact_sheets.CELL[0] / 2) < 6  # the box is half as wide as the picture
    assert abs(xs.min() - (contact_sheets.GAP + contact_sheets.CELL[0] / 4)) < 6
    assert ys.max() - ys.min() > contact_sheets.CELL[1] / 2 - 6


def test_pictures_that_are_gone_or_broken_have_the_reason_in_their_place(tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    good, gone, torn = labelled_scenes(tmp_path / "pictures", 3, num_files=1)
    pictures = [good, replace(gone, file=tmp_path / "gone.png"), replace(torn, file=tmp_path / "torn.jpg")]
    (path,) = write_contact_sheets(set_of(pictures), tmp_path / "preview")
    row = np.asarray(Image.open(path)).astype(int)
    left = contact_sheets.GAP + contact_sheets.CELL[0] + contact_sheets.GAP
    reds = (row[:, left:, 0] > 110) & (row[:, left:, 1] < 90)
    assert reds.any()  # the letters of the reasons
    with pytest.raises(InvalidImage, match="the file is gone"):
        read_thumbnail(tmp_path / "gone.png", 100)
    with pytest.raises(InvalidImage, match=r"torn\.jpg"):
        read_thumbnail(tmp_path / "torn.jpg", 100)


def test_small_copies_are_upright_and_small(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (1600, 800), "red")
    picture.paste("blue", (800, 0, 1600, 800))
    picture.save(tmp_path / "turned.jpg", exif=exif)
    small = read_thumbnail(tmp_path / "turned.jpg", 200)
    assert small.size == (100, 200)
    top = small.getpixel((50, 20))
    assert isinstance(top, tuple)
    assert top[0] > 200 > 60 > top[2]


def test_labels_say_what_was_read_and_stay_short() -> None:
    assert words_of(LabelledObject("text", (0, 0, 1, 1), score=0.5, text="EXIT\n12")) == "EXIT 12 0.50"
    assert words_of(LabelledObject("x" * 500, (0, 0, 1, 1))) == "x" * 39 + "…"
