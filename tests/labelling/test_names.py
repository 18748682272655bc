"""Names of pictures in a data set: each its own on every file system, whatever the pictures were called."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from florence2.labelling.names import Named, resolved


def names(*given: tuple[str, ...]) -> list[str]:
    return resolved(Named(*one) for one in given)


def test_names_stay_where_they_can():
    assert names(("a.jpg", "photos", ".jpg"), ("sub/Öl 1.png", "photos", ".png"), ("noext", "", "")) == ["a.jpg", "sub/Öl 1.png", "noext"]


def test_pictures_of_several_folders_stand_under_these():
    assert names(("a.jpg", "x/cats", ".jpg"), ("a.jpg", "dogs/**/*.jpg", ".jpg"), ("b.jpg", "", ".jpg"), ("a.jpg", ".", ".jpg")) == [
        "cats/a.jpg",
        "dogs/a.jpg",
        "b.jpg",
        "a.jpg",
    ]


def test_of_those_that_clash_the_later_gets_a_number():
    decomposed = unicodedata.normalize("NFD", "é.jpg")
    given = [
        ("a.jpg", "", ".jpg"),
        ("a.png", "", ".png"),
        ("A.JPG", "", ".JPG"),
        ("a-2.jpg", "", ".jpg"),
        ("é.jpg", "", ".jpg"),
        (decomposed, "", ".jpg"),
    ]
    assert names(*given) == ["a.jpg", "a-2.png", "A-3.JPG", "a-2-2.jpg", "é.jpg", "é-2.jpg"]


def test_a_page_has_the_suffix_of_its_pixels():
    assert names(("doc-p003.pdf", "", ".png"), ("clip-t00004.000.mp4", "", ".jpg")) == ["doc-p003.png", "clip-t00004.000.jpg"]


def test_names_lead_nowhere_else():
    assert names(("../../etc/x.jpg", "", ".jpg"), ("/abs/y.jpg", "", ".jpg"), ("a\\..\\b.jpg", "", ".jpg")) == [
        "etc/x.jpg",
        "abs/y.jpg",
        "a/b.jpg",
    ]


PARTS = st.text(
    st.sampled_from('aAbé\u0301. :*\\"<>|?~$-\x07\udc80\u2028ß\u017f\u212a') | st.characters(), min_size=1, max_size=8
) | st.sampled_from(["CON", "aux.txt", "nul", "..", ".", "...", " ", "x" * 300, "한" * 120, "COM1.jpg"])
SUFFIXES = st.sampled_from([".jpg", ".JPG", ".png", "", ".a-very-long-suffix"])


@given(
    st.lists(st.tuples(st.lists(PARTS, min_size=1, max_size=40).map("/".join), st.sampled_from(["", "x", "y/z"]), SUFFIXES), max_size=12)
)
def test_every_name_is_one_that_all_systems_take(given):
    found = names(*((name + suffix, root, suffix) for name, root, suffix in given))
    assert len(found) == len(given)
    assert len({unicodedata.normalize("NFC", str(PurePosixPath(name).with_suffix(""))).casefold() for name in found}) == len(found)
    for name in found:
        assert len(name.encode()) < 1200
        for part in name.split("/"):
            assert part.strip(". ")
            assert len(part.encode()) <= 255
            assert not set(part) & set('<>:"|?*\\\x07')
            assert part.partition(".")[0].lower() not in ("con", "nul", "aux", "com1")
