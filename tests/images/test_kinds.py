from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from florence2.images.kinds import kind_of_input, kind_of_text


def as_base64(kind: str) -> str:
    buffer = io.BytesIO()
    Image.effect_noise((40, 40), 50).convert("RGB").save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Image.new("L", (1, 1)), "picture"),
        (np.zeros(3), "array"),
        (b"x", "bytes"),
        (bytearray(b"x"), "bytes"),
        (memoryview(b"x"), "bytes"),
        (Path("x"), "path"),
        ("x", "text"),
        (None, None),
        (3, None),
        ([b"x"], None),
        (io.BytesIO(b"x"), None),
    ],
)
def test_values_by_their_type(value: object, kind: str | None) -> None:
    assert kind_of_input(value) == kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("data:image/png;base64,AAAA", "data_uri"),
        (" DATA:,x", "data_uri"),
        ("file:///tmp/a.png", "file_url"),
        ("File:a.png", "file_url"),
        ("https://a.example/a.png", "url"),
        ("S3://bucket/a.png", "url"),
        ("c:/a.png", "path"),
        ("a.png", "path"),
        ("", "path"),
        ("n" * 40, "path"),
        ("x" * 5000, "path"),
        ("/9j/" + "nope/" * 20 + "x.jpg", "path"),
        ("/9j/4AAQ", "path"),
        ("examples/images/scene/without/extension", "path"),
        (as_base64("JPEG"), "base64"),
        (as_base64("WEBP").rstrip("=").replace("+", "-").replace("/", "_"), "base64"),
        ("\n".join([as_base64("AVIF")[:76], as_base64("AVIF")[76:]]), "base64"),
        (as_base64("PCX"), "base64"),
        (as_base64("PNG") + "!", "path"),
    ],
)
def test_texts_by_how_they_begin(text: str, kind: str) -> None:
    assert kind_of_text(text) == kind


def test_a_file_with_a_name_of_base64_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = as_base64("GIF")[:64].replace("/", "_").replace("+", "-")
    assert kind_of_text(name) == "base64"
    Path(name).touch()
    assert kind_of_text(name) == "path"
