"""The key that the beginning of a body shows."""

from __future__ import annotations

import time

import pytest

from florence2.server.http.body import SEARCHED_BYTES
from florence2.server.roboflow.body_key import find_key, shown_key


@pytest.mark.parametrize(
    ("beginning", "shown"),
    [
        ('{"api_key": "KEY"', (True, "KEY")),
        (' {"source": "a\\"b", "start": 1.5e3, "scores": null , "api_key":"K\\u0045Y","image": {', (True, "KEY")),
        ('{"api_key": null, "image"', (True, None)),
        ('{"api_key": 7}', (True, None)),
        ('{"api_key": "KE', (False, None)),
        ('{"api_key": nul', (False, None)),
        ('{"prompt": "\\"api_key\\": \\"KEY\\""', (False, None)),
        ('{"prompt": "a \\"api_key\\": \\"KEY\\"", "api_key": "real"', (True, "real")),
        ('{"image": {"api_key": "KEY"}, "api_key": "late"}', (False, None)),
        ('["api_key", "KEY"]', (False, None)),
        ("", (False, None)),
        ('{"api_key": "\\ud800"', (True, None)),
    ],
)
def test_the_key_at_the_beginning_of_a_body(beginning: str, shown: tuple[bool, str | None]) -> None:
    assert shown_key(beginning.encode()) == shown


@pytest.mark.parametrize("line", ['name="api_key"\r\n', "name=api_key" * 16 + "\r\n", "name=api_key", 'name="api_key"\r\na\r\n'])
def test_names_of_keys_without_end_are_looked_through_at_once(line: str) -> None:
    scope = {"headers": [(b"content-type", b"multipart/form-data; boundary=x")]}
    began = time.process_time()
    find_key(scope, (line * SEARCHED_BYTES).encode()[:SEARCHED_BYTES])
    assert time.process_time() - began < 0.5  # it took six seconds, in which nobody else was answered
