"""Names of pictures as other systems write them lead to their files."""

from __future__ import annotations

import unicodedata

import pytest

from florence2.datasets.pictures import FilePicture, Pictures
from florence2.datasets.reader import read_dataset
from florence2.errors import InvalidImage
from tests.training.sets import write_jsonl, write_pictures

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Köln é ガ") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("written", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("stored", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_letters_with_accents_are_found_in_either_form(tmp_path, written, stored, slash):
    write_pictures(tmp_path / stored)
    (tmp_path / stored / "0.png").rename(tmp_path / stored / f"{stored}.png")
    line = {"image": f"{written}{slash}{written}.png", "prompt": "<CAPTION>", "answer": "a"}
    same = {**line, "image": f"{stored}/{stored}.png"}
    first, second = read_dataset(str(write_jsonl(tmp_path / "set.jsonl", [line, same]))).sound()
    assert first.picture == second.picture == FilePicture(tmp_path / stored / f"{stored}.png")


@pytest.mark.parametrize("name", ["images\\a.png", ".\\images\\a.png", "images/a.png", "images\\..\\images/a.png"])
def test_backslashes_separate_folders(tmp_path, name):
    write_pictures(tmp_path / "images")
    (tmp_path / "images" / "0.png").rename(tmp_path / "images" / "a.png")
    pictures = Pictures(tmp_path)
    assert pictures.size(pictures.find(name)) == (80, 60)


def test_a_name_is_itself_before_it_is_anything_else(tmp_path):
    write_pictures(tmp_path / "images")
    for stored in ("images\\0.png", f"{COMPOSED}.png", f"{DECOMPOSED}.png"):
        (tmp_path / stored).write_bytes((tmp_path / "images" / "0.png").read_bytes())
        assert Pictures(tmp_path).find(stored) == tmp_path / stored


def test_what_is_not_there_is_told_by_the_name_that_was_given(tmp_path):
    pictures = Pictures(tmp_path)
    for name in ("images\\a.png", f"{COMPOSED}.png", "a\0b", "gone/a.png"):
        assert pictures.find(name) == tmp_path / name
        with pytest.raises(InvalidImage):
            pictures.size(pictures.find(name))
