"""Lines are broken where readers expect it, fit their width, and run the way their letters do."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from florence2.draw import fonts, lettering
from florence2.draw.fonts import Fonts
from florence2.draw.lettering import ELLIPSIS, Lettering, in_visual_order, is_right_to_left


@pytest.fixture
def letters() -> Lettering:
    return Lettering(Fonts(), 20)


def picture(text: str) -> np.ndarray:
    canvas = Image.new("L", (500, 40))
    Lettering(Fonts(), 24).draw(ImageDraw.Draw(canvas), 2, 2, [text], "#FFFFFF")
    return np.asarray(canvas)


@pytest.mark.parametrize(
    ("text", "max_lines"),
    [("a yellow star with five points " * 6, None), ("Donaudampfschifffahrtsgesellschaft" * 5, None), ("ab\n\ncd", None), ("", None)],
)
def test_lines_fit_and_nothing_is_lost(letters: Lettering, text: str, max_lines: int | None) -> None:
    lines = letters.wrapped(text, 200, max_lines)
    assert all(letters.width(line) <= 200 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_lines_break_between_words_and_at_line_breaks(letters: Lettering) -> None:
    assert letters.wrapped("one two\nthree\r\nfour\u2028five", 500) == ["one two", "three", "four", "five"]
    assert letters.wrapped("aaaa bbbb cccc", letters.width("aaaa bbbb")) == ["aaaa bbbb", "cccc"]


def test_scripts_without_spaces_break_between_characters_but_not_before_a_full_stop(letters: Lettering) -> None:
    text = "赤い自転車。青い犬、白いッ猫「空」"
    for width in range(60, 260, 7):
        lines = letters.wrapped(text, width)
        assert "".join(lines) == text
        assert not any(line[0] in "。、」ッ" for line in lines[1:]), lines
        assert not any(line[-1] == "「" for line in lines), lines


def test_korean_breaks_between_words(letters: Lettering) -> None:
    lines = letters.wrapped("빨간 재킷을 입은 남자가 자전거를", letters.width("빨간 재킷을 입은"))
    assert lines[0] == "빨간 재킷을 입은"


def test_what_is_too_much_ends_in_three_points(letters: Lettering) -> None:
    lines = letters.wrapped("word " * 100, 200, 3)
    assert len(lines) == 3
    assert lines[-1].endswith(ELLIPSIS)
    assert all(letters.width(line) <= 200 for line in lines)


def test_balanced_lines_are_of_about_the_same_length(letters: Lettering) -> None:
    text = "a man in a red jacket riding a bicycle along a street"
    width = letters.width(text) * 0.9
    plain, balanced = letters.wrapped(text, width, 8), letters.balanced(text, width, 8)
    assert len(plain) == len(balanced) == 2
    assert max(map(letters.width, balanced)) < 0.8 * max(map(letters.width, plain))


def test_decomposed_letters_are_composed(letters: Lettering) -> None:
    assert letters.wrapped("\u1112\u1161\u11ab e\u0301", 500) == ["한 é"]  # as macOS writes the names of files


def test_what_has_no_shape_is_left_out(letters: Lettering) -> None:
    assert letters.wrapped("a\u0000b\u200bc\ufe0fd\u202ee\tf\xa0g", 500) == ["abcde f g"]


def test_direction_is_that_of_the_first_letter() -> None:
    assert is_right_to_left("0.5 שלום abc")
    assert not is_right_to_left("abc שלום")
    assert not is_right_to_left("12")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("abc", "abc"),
        ("אבג", "גבא"),
        ("אב גד 0.30", "0.30 דג בא"),
        ("cat אב גד dog 3", "cat דג בא dog 3"),
        ("(אב) cat", "cat (בא)"),
        ("אב 12 cd", "12 cd בא"),
    ],
)
def test_without_raqm_letters_are_put_in_their_order(text: str, seen: str) -> None:
    assert "".join(in_visual_order(list(text))) == seen


def test_without_raqm_hebrew_is_drawn_in_that_order(monkeypatch: pytest.MonkeyPatch) -> None:
    load = ImageFont.truetype
    monkeypatch.setattr(ImageFont, "truetype", lambda *given, **more: load(*given, layout_engine=ImageFont.Layout.BASIC, **more))
    fonts._loaded.cache_clear()
    try:
        monkeypatch.setattr(lettering, "HAS_RAQM", True)  # so that nothing is put in order here
        as_written, on_paper = picture("cat שלום עולם dog"), picture("cat םלוע םולש dog")
        monkeypatch.setattr(lettering, "HAS_RAQM", False)
        drawn = picture("cat שלום עולם dog")
    finally:
        fonts._loaded.cache_clear()
    assert np.array_equal(drawn, on_paper)
    assert not np.array_equal(drawn, as_written)
