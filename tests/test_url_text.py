"""No text of a URL holds what may be a key."""

from __future__ import annotations

import pytest

from florence2.url_text import MAX_SHOWN_CHARS, host_and_path, without_keys


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/b.jpg?key=secret#secret", "https://a.example/b.jpg"),
        ("https://user:secret@a.example:8443/b.jpg", "https://a.example:8443/b.jpg"),
        (" http:/user:secret@a.example/b", "http://a.example/b"),
        ("https://[::1]:9001/b", "https://[::1]:9001/b"),
        ("https://se cret/b", "https://…"),
        ("secret", "//…"),
    ],
)
def test_keys_are_left_out(url: str, shown: str) -> None:
    assert without_keys(url) == shown


def test_long_urls_are_cut() -> None:
    assert len(without_keys("https://a.example/" + "x" * 5000)) == MAX_SHOWN_CHARS + 1


def test_host_and_path() -> None:
    assert host_and_path("https://u:p@a.example:1/b/c.png?x") == ("a.example:1", "/b/c.png")
    assert host_and_path("c.png") == ("", "")
