"""Names of files that every usual system takes, and that stay different."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from florence2.datasets.labelled import LabelledPicture
from florence2.datasets.writers.names import flat_names, portable_name
from tests.datasets.writers.labelled_sets import labelled_set

ANY = st.text(st.characters(blacklist_categories=()), max_size=30)


def flat_of(names):
    flat = flat_names(labelled_set([LabelledPicture(name, Path("x"), (1, 1)) for name in names]))
    return [flat(name) for name in names]


@pytest.mark.parametrize("name", ["a.jpg", "sub/a b.jpg", "größe 'ü'.png", "-x.png", "a__b.png", "日本/🐱.jpg", "x.y.z.png", "#1 50%.png"])
def test_a_name_that_all_systems_take_stays_as_it_is(name):
    assert portable_name(name) == name


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("12:30?.jpg", "12_30_-"),
        ("con.jpg", "_con-"),
        ("sub/NUL/a.png", "sub/_NUL/a-"),
        ("trailing. /a.png", "trailing__/a-"),
        ("line\nbreak.png", "line_break-"),
        ("half\ud800.png", "half_-"),
        ("../../up.png", "__/__/up-"),
        ("/root.png", "root-"),
        ("a\\b.png", "a_b-"),
    ],
)
def test_others_are_changed_and_marked(name, begins):
    assert portable_name(name).startswith(begins)
    assert portable_name(name).endswith(name[-4:])


def test_folders_become_part_of_the_name():
    assert flat_of(["a/b.jpg", "c.jpg", "x__y.jpg"])[:2] == ["a__b.jpg", "c.jpg"]
    assert flat_of(["x__y.jpg", "z.jpg"]) == ["x__y.jpg", "z.jpg"]  # nothing to be taken for
    assert len(set(flat_of(["a/b.jpg", "a__b.jpg", "a_/b.jpg", "a/_b.jpg", "a/b/c.jpg", "a__b/c.jpg"]))) == 6


def test_long_names_are_cut_and_stay_different():
    assert portable_name(f"sub/{'x' * 255}").encode().startswith(b"sub/" + b"x" * 231 + b"-")
    names = [f"{'ü' * 120}/{'x' * 150}{end}.jpg" for end in "ab"]
    flat = flat_of(names)
    assert len(set(flat)) == 2
    assert all(len(name.encode()) <= 240 and name.endswith(".jpg") for name in flat)


@given(
    st.lists(
        ANY.map(lambda name: name.replace("\0", "") + ".png"),
        min_size=2,
        max_size=6,
        unique_by=lambda n: unicodedata.normalize("NFC", n).casefold(),
    )
)
def test_different_names_stay_different_and_within_the_folder(names):
    for changed in ([portable_name(name) for name in names], flat_of(names)):
        assert len({unicodedata.normalize("NFC", name).casefold() for name in changed}) == len(names)
        for name in changed:
            name.encode()
            assert not name.startswith("/")
            assert ".." not in name.split("/")
            assert "\n" not in name
