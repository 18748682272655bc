"""The quick decoder gives what the careful one gives."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from florence2.image_files import base64_text
from florence2.server.http import base64_values

PIECES = st.sampled_from(["QUJD", "QQ==", "QUI=", "QUI", "-_8", "+/8=", "A", "=", "\n", " ", "é", "\0", "!", "QR=="])


def outcome(decode: Callable[[str], bytes], text: str) -> bytes | type[Exception]:
    try:
        return decode(text)
    except ValueError:
        return ValueError


@given(st.lists(PIECES, max_size=5).map("".join))
def test_it_agrees_with_the_careful_decoder(text: str) -> None:
    assert outcome(base64_values.decode_base64, text) == outcome(base64_text.decode_base64, text)


def test_the_usual_text_is_not_decoded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def careful(text: str) -> bytes:
        raise AssertionError("the careful decoder was asked")

    data = bytes(range(256)) * 300
    monkeypatch.setattr(base64_text, "decode_base64", careful)
    assert base64_values.decode_base64(base64.b64encode(data).decode()) == data


def test_a_long_text_is_left_to_the_decoder_that_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(base64_text, "decode_base64", lambda text: asked.append(len(text)) or b"")
    base64_values.decode_base64("A" * (base64_values.WHOLE_CHARS + 4))
    assert asked == [base64_values.WHOLE_CHARS + 4]
