"""A result's picture is read again as it was asked about: upright or as stored, unchanged, of the same size."""

from __future__ import annotations

import io
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from florence2.errors import InvalidImage
from florence2.image_files.exif import ORIENTATION_TAG as ORIENTATION
from florence2.images import read_image
from florence2.sources import Source, picture_for, remember

ORIENTATIONS = range(1, 9)


def photo(orientation: int, size: tuple[int, int] = (60, 40), kind: str = "PNG") -> bytes:
    """A file whose stored pixels are dark but for their top left quarter, with an EXIF orientation."""
    picture = Image.new("RGB", size, (20, 20, 20))
    picture.paste((250, 40, 40), (0, 0, size[0] // 2, size[1] // 2))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    picture.save(file, kind, exif=exif)
    return file.getvalue()


def upright(data: bytes) -> Image.Image:
    """What Pillow itself says is upright."""
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert turned is not None
    return turned.convert("RGB")


def same(first: Image.Image, second: Image.Image) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("size", [(60, 40), (40, 40)])
def test_a_photo_that_was_asked_about_by_its_file_is_upright_however_it_is_given(
    orientation: int, size: tuple[int, int], tmp_path: Path
) -> None:
    data = photo(orientation, size)
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    wanted = upright(data)
    for asked in (None, remember(path), remember(data), remember(ImageOps.exif_transpose(Image.open(path)))):
        for given in (path, str(path), data, bytearray(data), Image.open(path), read_image(path), wanted, np.asarray(wanted)):
            assert same(picture_for(wanted.size, given, asked), wanted), (asked, type(given))
    assert same(picture_for(wanted.size, None, remember(path)), wanted)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("size", [(60, 40), (40, 40)])
def test_a_picture_that_was_asked_about_as_stored_stays_so(orientation: int, size: tuple[int, int], tmp_path: Path) -> None:
    data = photo(orientation, size)
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    stored = Image.open(path).convert("RGB")
    for asked in (remember(Image.open(path)), remember(path, auto_orient=False), remember(np.asarray(stored))):
        for given in (Image.open(path), path, data, np.asarray(stored), None):
            assert same(picture_for(stored.size, given, asked), stored), (asked, type(given))
        left = asked.without_image()  # what travels
        assert same(picture_for(stored.size, Image.open(path), left), stored)


def test_read_pictures_are_not_turned_twice() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", *(["AVIF"] if features.check("avif") else [])):
        for orientation in ORIENTATIONS:
            data = photo(orientation, (64, 64), kind)
            picture = read_image(data)
            assert picture.getexif().get(ORIENTATION, 1) == 1, kind
            assert same(picture_for((64, 64), picture, None), picture)


def test_files_are_found_after_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(photo(1))
    monkeypatch.chdir(tmp_path)
    asked = remember("a.png")
    monkeypatch.chdir("/")
    assert picture_for((60, 40), None, asked).size == (60, 40)


def test_files_that_changed_or_vanished_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(photo(1))
    asked = remember(path)
    path.write_bytes(photo(1, kind="BMP"))
    with pytest.raises(InvalidImage, match=r"was changed after the question: ask again, or pass the picture.*result\.draw\(picture\)"):
        picture_for((60, 40), None, asked)
    path.unlink()
    with pytest.raises(InvalidImage, match="is gone since the question"):
        picture_for((60, 40), None, asked)


def test_a_pipe_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    asked: list[Source] = []
    writer = threading.Thread(target=lambda: path.write_bytes(photo(1)))
    writer.start()
    asked.append(remember(path))
    read_image(path)
    writer.join()
    with pytest.raises(InvalidImage, match="can be read only once: pass the picture"):  # and does not hang
        picture_for((60, 40), None, asked[0])


def test_what_is_not_held_is_told() -> None:
    for asked in (None, Source(None, auto_orient=False)):
        with pytest.raises(InvalidImage, match=r"does not hold its picture.*pass the picture that was asked about: result.draw"):
            picture_for((60, 40), None, asked)


def test_only_a_reference_is_kept() -> None:
    data, array, picture = photo(1), np.zeros((4, 4, 3), np.uint8), Image.new("RGB", (4, 4))
    assert all(remember(image).image is image for image in (data, array, picture))


def test_a_closed_picture_says_so_and_harms_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo(6))
    with Image.open(tmp_path / "a.png") as picture:
        pass
    asked = remember(picture)
    assert pickle.dumps(asked.without_image())
    with pytest.raises(InvalidImage, match="closed"):
        picture_for((60, 40), None, asked)


def test_sizes_may_come_as_a_list() -> None:
    assert picture_for([60, 40], photo(1), None).size == (60, 40)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("path", ["a\0b.png", "x" * 5000, "data:image/png;base64,AAAA", "https://example.com/a.png"])
def test_what_is_no_path_is_left_to_the_reader(path: str) -> None:
    assert remember(path).stamp is None
    with pytest.raises(InvalidImage):
        read_image(path)


def test_a_folder_that_was_removed_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert remember("a.png").image == "a.png"
