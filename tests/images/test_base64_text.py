from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from florence2.image_files import base64_text
from florence2.image_files.base64_text import decode_base64, is_data_uri, without_prefix

DATA = bytes(range(251)) * 3
PLAIN = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.rstrip("="),
        base64.urlsafe_b64encode(DATA).decode().rstrip("="),
        base64.encodebytes(DATA).decode(),
        f" \t{PLAIN}\r\n",
    ],
)
def test_base64_in_every_hand(text: str) -> None:
    assert decode_base64(text) == DATA


def test_nothing_is_nothing() -> None:
    assert decode_base64("") == decode_base64("==") == decode_base64(" \n") == b""


@pytest.mark.parametrize("text", ["!!!!", "abcde", "ab=cd", "ümlaut", "a.b"])
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|ascii|ASCII|[Pp]adding|multiple of 4|Only"):
        decode_base64(text)


@given(st.text("Aa0+/-_= \n!é", max_size=12) | st.binary(max_size=30).map(lambda data: base64.b64encode(data).decode()))
def test_it_is_what_python_takes_for_base64(text: str) -> None:
    """Whichever decoder is installed."""

    def outcome() -> bytes | None:
        try:
            return decode_base64(text)
        except ValueError:
            return None

    with pytest.MonkeyPatch.context() as patch:
        found = outcome()
        patch.setattr(base64_text, "b64decode", base64.b64decode)
        assert found == outcome()


def test_the_prefix_of_a_data_uri() -> None:
    for text in (f"data:image/png;base64,{PLAIN}", f" DATA:,{PLAIN}", "data:x," + PLAIN.replace("+", "%2B").replace("/", "%2F")):
        assert is_data_uri(text)
        assert without_prefix(text) == PLAIN
    for text in (PLAIN, "data:image/png;base64", "https://a/data:,x", "data:" + "x" * 300 + ","):
        assert not is_data_uri(text)
        assert without_prefix(text) == text


def test_plain_text_is_decoded_at_once_and_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    decode, decoded = base64_text.b64decode, []

    def noting(text: str | bytes, validate: bool = False) -> bytes:
        decoded.append(text)
        return decode(text, validate=validate)

    monkeypatch.setattr(base64_text, "b64decode", noting)
    assert decode_base64(without_prefix(PLAIN)) == DATA
    assert len(decoded) == 1
    assert decoded[0] is PLAIN
