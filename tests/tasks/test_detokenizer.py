"""Text comes in whole characters, and every token finds its own, wherever their bytes are cut."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import example, given, settings
from hypothesis import strategies as st

from florence2.tasks.detokenizer import Detokenizer

_PIECES = st.one_of(
    st.sampled_from([b"a", b"\xe2", b"\x82", b"\xac", b"\xf0\x9f", b"\x98", b"\x80", b"\xed", b"\xa0", b"\xff", b"\xef\xbf\xbd", b"", b""]),
    st.text(max_size=3).map(lambda text: text.encode("utf-8", "replace")),
    st.binary(max_size=3),
)


def characters_of(data: bytes) -> tuple[str, list[int]]:
    """The text of all bytes at once, and for each byte the index of its character."""
    text, owners = "", []
    while len(owners) < len(data):
        for length in (1, 2, 3, 4):
            rest = data[len(owners) : len(owners) + length]
            decoded = rest.decode("utf-8", "replace")
            if "\ufffd" not in decoded or rest == b"\xef\xbf\xbd":
                break
        else:
            try:
                data[len(owners) :].decode("utf-8")
            except UnicodeDecodeError as error:
                length, decoded = error.end, "\ufffd"
        owners += [len(text)] * min(length, len(data) - len(owners))
        text += decoded
    return text, owners


@settings(max_examples=500, deadline=None)
@given(pieces=st.lists(_PIECES, max_size=8))
@example(pieces=[b"\xed", b"\xa0", b"", b"\x80"])
@example(pieces=[b"\xf0\x9f", b"", b"a"])
@example(pieces=[b"\xe2", b"", b"\x82", b"\xac", b""])
def test_the_text_and_the_spans_are_those_of_all_bytes_at_once(pieces: list[bytes]) -> None:
    detokenizer = Detokenizer()
    shown = [detokenizer.add(piece) for piece in pieces]
    for text in shown:
        text.encode("utf-8")
    text, owners = characters_of(b"".join(pieces))
    assert "".join([*shown, detokenizer.end()]) == text == b"".join(pieces).decode("utf-8", "replace")
    assert len(detokenizer.offsets) == len(pieces)
    ends = list(accumulate(map(len, pieces)))
    for piece, end, span in zip(pieces, ends, detokenizer.offsets, strict=True):
        if piece:
            assert span == (owners[end - len(piece)], owners[end - 1] + 1)
        elif 0 < end < len(owners) and owners[end - 1] == owners[end]:
            assert span == (owners[end], owners[end] + 1)
        else:
            assert span[0] == span[1] == (owners[end] if end < len(owners) else len(text))


def test_a_character_comes_with_its_last_byte() -> None:
    detokenizer = Detokenizer()
    assert [detokenizer.add(bytes([byte])) for byte in "né🐱".encode()] == ["n", "", "é", "", "", "", "🐱"]
    assert detokenizer.end() == ""
