"""The text of an answer as it grows is the text of the whole answer, and comes as soon as it is certain."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from florence2.tasks.sentinels import SentinelFilter, TextFilter

PIECES = st.lists(
    st.sampled_from(["<s>", "</s>", "<pad>", "<", ">", "s>", "/", "s", "pad>", " ", "\n", "\u2003", "a", "é", "<loc_1>", "<p", "</"]),
    max_size=9,
)


def removed(text: str) -> str:
    return text.replace("<s>", "").replace("</s>", "").replace("<pad>", "")


@settings(max_examples=500, deadline=None)
@given(pieces=PIECES)
@example(pieces=["<", "<s>", "s", ">"])
@example(pieces=["</", "<s>", "s>", "<"])
def test_the_pieces_are_the_text_without_sentinels(pieces: list[str]) -> None:
    text = SentinelFilter()
    shown = ""
    for piece in pieces:
        shown += text.add(piece)
        assert text.length == len(shown)
    assert shown + text.add("", is_last=True) == removed("".join(pieces))


@settings(max_examples=300, deadline=None)
@given(pieces=PIECES)
def test_offsets_that_are_certain_stay(pieces: list[str]) -> None:
    text, whole = SentinelFilter(), SentinelFilter()
    whole.add("".join(pieces), is_last=True)
    raw = ""
    for piece in pieces:
        text.add(piece)
        raw += piece
        for offset in range(len(raw) + 1):
            if text.position(offset) <= text.length:
                assert text.position(offset) == whole.position(offset)
            else:
                assert whole.position(offset) >= text.length


@settings(max_examples=300, deadline=None)
@given(pieces=PIECES)
def test_answers_in_words_have_no_whitespace_around_them(pieces: list[str]) -> None:
    text = TextFilter("text")
    shown = "".join(map(text.add, pieces)) + text.add("", is_last=True)
    assert shown == "".join(pieces).replace("<s>", "").replace("</s>", "").strip()


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["<s>", " a", " red", " car", "</s>"], ["", "a", " red", " car", ""]),
        (["\n", " \n", "a", "\n", " \n", "b", " "], ["", "", "a", "", "", "\n \nb", ""]),
        (["a <", "3", " b<", "s", ">", "c"], ["a", " <3", " b", "", "", "c"]),
        (["1 <", "/s", "x"], ["1", "", " </sx"]),
        (["a<pad>", "<loc_1>"], ["a<pad>", "<loc_1>"]),
    ],
)
def test_what_is_certain_comes_at_once(pieces: list[str], shown: list[str]) -> None:
    text = TextFilter("text")
    assert list(map(text.add, pieces)) == shown
