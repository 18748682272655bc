"""HEIC pictures of phones, with the extra that reads them and without."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pillow_heif
import pytest
from PIL import Image

from florence2.errors import InvalidImage
from florence2.image_files import Structure, describe, inspect, is_read
from florence2.images import read_image, size_of
from florence2.server.inference.decoding import Decoders
from florence2.server.settings import Settings


def heic(mode: str = "RGB", size: tuple[int, int] = (128, 64), **options: Any) -> bytes:
    """Black, but for a red corner, at the top on the left."""
    picture = Image.new("RGB", size)
    picture.paste((255, 0, 0), (0, 0, 30, 20))
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture.convert(mode)).save(buffer, quality=95, **options)
    return buffer.getvalue()


def is_red(pixel: Any) -> bool:
    return pixel[0] > 200 and max(pixel[1:]) < 50


def refused(data: bytes) -> str:
    with pytest.raises(InvalidImage) as caught:
        read_image(data)
    return caught.value.message


def test_a_picture_of_a_phone(tmp_path: Path) -> None:
    (tmp_path / "IMG_0001.jpg").write_bytes(heic())
    picture = read_image(tmp_path / "IMG_0001.jpg")
    assert (picture.mode, picture.size) == ("RGB", (128, 64))
    assert is_red(picture.getpixel((5, 5)))
    assert not is_red(picture.getpixel((100, 50)))
    assert "HEIF" not in Image.OPEN  # pillow-heif is not registered for others


def test_its_own_boxes_turn_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = heic(exif=exif.tobytes())
    assert (size_of(turned), read_image(turned).size) == ((64, 128), (64, 128))
    assert is_red(read_image(turned).getpixel((60, 5)))


def test_transparency_lies_on_white_and_grey_is_grey() -> None:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGBA", (64, 64))).save(buffer)
    assert read_image(buffer.getvalue()).getpixel((5, 5)) == (255, 255, 255)
    assert read_image(heic("L")).size == (128, 64)


def test_what_it_claims_is_bounded_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic()
    claim = b"ispe\0\0\0\0" + (128).to_bytes(4, "big") + (64).to_bytes(4, "big")
    assert data.count(claim) == 1
    monkeypatch.setattr(pillow_heif, "HeifImageFile", None)
    huge = data.replace(claim, b"ispe\0\0\0\0" + (60000).to_bytes(4, "big") * 2)
    assert "60000 x 60000 are more pixels" in refused(huge)
    assert "no pixels" in refused(data.replace(claim, b"ispe\0\0\0\0" + bytes(8)))


def test_damaged_files_are_refused() -> None:
    data = heic()
    claim = b"ispe\0\0\0\0" + (128).to_bytes(4, "big") + (64).to_bytes(4, "big")
    assert "damaged" in refused(data.replace(claim, b"ispe\0\0\0\0" + (9).to_bytes(4, "big") + (6).to_bytes(4, "big")))
    for length in range(20, len(data), 37):
        assert "damaged" in refused(data[:length])
    boxes = b"\0\0\0\x08free" * 300_000
    assert "parts" in refused(data[:28] + boxes)
    start = data.index(b"iinf")
    assert "parts" in refused(data[: start + 4] + b"\1" + data[start + 5 : start + 8] + b"\xff" * 4 + data[start + 12 :])


def test_the_server_decodes_it_in_a_process_of_its_own() -> None:
    structure = inspect(heic(size=(400, 300)))
    assert isinstance(structure, Structure)
    assert (structure.size, structure.is_plain) == ((400, 300), False)
    decoders = Decoders(Settings())
    try:
        assert asyncio.run(decoders.decode(structure, auto_orient=True)).size == (400, 300)
    finally:
        decoders.close()


def test_without_the_extra_the_message_names_it_and_the_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic()
    hidden: ModuleType | None = None
    monkeypatch.setitem(sys.modules, "pillow_heif", hidden)  # type: ignore[arg-type]
    assert not is_read(data)
    assert (inspect(data), size_of(data)) == (None, None)
    for said in ("a HEIC picture", "pip install 'florence2-engine[heif]'", "convert it to JPEG", "Most Compatible"):
        assert said in refused(data)
        assert said in describe(data)
