"""Images in every form that clients send, and in forms that they should not."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fixtures.fake_engine import FakeEngine
from florence2.errors import InvalidImage
from florence2.server.errors import ImageTooLarge
from florence2.server.roboflow.image_field import decode_base64, read
from florence2.server.roboflow.refusals import CAUSE
from florence2.server.roboflow.schemas import ImageField
from florence2.server.settings import Settings
from tests.server.fakes import body, client_of, image_bytes, image_field

DATA = bytes(range(251)) * 2  # holds both characters in which the alphabets differ
PLAIN = base64.b64encode(DATA).decode()
URL_SAFE = base64.urlsafe_b64encode(DATA).decode()

WRITTEN = {
    "plain": PLAIN,
    "data prefix": f"data:image/jpeg;base64,{PLAIN}",
    "another type in the prefix": f"data:image/svg+xml;base64,{PLAIN}",
    "no image type in the prefix": f"data:application/octet-stream;charset=x;base64,{PLAIN}",
    "prefix in capitals": f"DATA:IMAGE/PNG;BASE64,{PLAIN}",
    "line breaks": "\r\n".join(PLAIN[start : start + 76] for start in range(0, len(PLAIN), 76)) + "\n",
    "URL-safe": URL_SAFE,
    "no padding": PLAIN.rstrip("="),
    "URL-safe, no padding, prefix and space": f" data:image/png;base64, {URL_SAFE.rstrip('=')} ",
}


@pytest.mark.parametrize("value", WRITTEN.values(), ids=WRITTEN)
def test_base64_in_every_hand(value: str) -> None:
    assert decode_base64(value) == DATA


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "Empty image payload."),
        ("data:image/png;base64,", "Empty image payload."),
        ("====", "Empty image payload."),
        ("!!!!", "Malformed base64 input image."),
        ("abcde", "Malformed base64 input image."),
        ("ab=cd", "Malformed base64 input image."),
        ("ümlaut", "Malformed base64 input image."),
        ("https://a.example/dog.jpg", "It looks like a URL"),
        ("/nope/x.jpg", "It looks like a path"),
        (None, "got null"),
        (7, "got a number"),
        ([PLAIN], "got a list"),
        ({"a": 1}, "got an object"),
    ],
)
def test_base64_that_is_none(value: object, words: str) -> None:
    with pytest.raises(InvalidImage) as caught:
        decode_base64(value)
    assert caught.value.message.startswith(CAUSE)
    assert words in caught.value.message


@pytest.mark.parametrize("kind", ["numpy", "numpy_object", "pil", "NumPy"])
def test_numpy_is_never_unpickled(kind: str, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    value = base64.b64encode(pickle.dumps(Bomb())).decode()
    with pytest.raises(InvalidImage, match='"base64"') as caught:
        read(ImageField(type=kind, value=value), value, Settings())
    assert "NumPy image type is not supported in this configuration" in caught.value.message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["", "svg", "multipart", "bytes"])
def test_other_types(kind: str) -> None:
    with pytest.raises(InvalidImage, match="not recognised image type"):
        read(ImageField(type=kind, value="x"), "x", Settings())


FILES = {
    "jpeg": image_bytes(kind="JPEG"),
    "png": image_bytes(kind="PNG"),
    "webp": image_bytes(kind="WEBP"),
    "gif": image_bytes(kind="GIF"),
    "bmp": image_bytes(kind="BMP"),
    "tiff": image_bytes(kind="TIFF"),
    "avif": image_bytes(kind="AVIF"),
    "cmyk": image_bytes(kind="JPEG", mode="CMYK", color=(0, 255, 255, 0)),
    "grey": image_bytes(mode="L", color=100),
    "palette": image_bytes(mode="P", color=1),
    "16 bit": image_bytes(mode="I;16", color=30000),
    "one pixel": image_bytes((1, 1)),
    "wide": image_bytes((2000, 1)),
}


@pytest.mark.anyio
@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
async def test_formats(data: bytes) -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        response = await client.post("/infer/lmm", json=body(image=image_field(data)))
    assert response.status_code == 200, response.text
    assert engine.pictures[0].mode == "RGB"


@pytest.mark.anyio
async def test_transparency_is_laid_on_white() -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        await client.post("/infer/lmm", json=body(image=image_field(image_bytes(mode="RGBA", color=(255, 0, 0, 0)))))
    assert engine.pictures[0].getpixel((0, 0)) == (255, 255, 255)


BROKEN = {
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "cut": image_bytes((200, 200), "JPEG", color="red")[:400],
    "text": b"hello, I am no image",
    "header alone": image_bytes()[:20],
    "pdf": b"%PDF-1.4",
}


@pytest.mark.anyio
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
async def test_broken_images(data: bytes) -> None:
    async with client_of() as client:
        response = await client.post("/infer/lmm", json=body(image=image_field(data)))
    assert response.status_code == 400
    assert response.json()["message"].startswith(CAUSE)
    assert response.json()["field"] == "image"


@pytest.mark.anyio
async def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    engine = FakeEngine()
    async with client_of(engine) as client:
        await client.post("/infer/lmm", json=body(image=image_field((tmp_path / "a.gif").read_bytes())))
    assert engine.pictures[0].getpixel((5, 5)) == (255, 0, 0)


def test_files_are_off(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image_bytes())
    with pytest.raises(InvalidImage, match="Loading images from local filesystem is disabled"):
        read(ImageField(type="file"), str(tmp_path / "a.png"), Settings())


def test_files_of_one_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "open", tmp_path / "outside.png"
    (folder / "below").mkdir(parents=True)
    outside.write_bytes(image_bytes((9, 9)))
    (folder / "below" / "a.png").write_bytes(image_bytes())
    (folder / "link.png").symlink_to(outside)
    (folder / "inner.png").symlink_to(folder / "below" / "a.png")
    settings = Settings(image_folder=folder)
    for name in ("below/a.png", str(folder / "below/a.png"), "inner.png", "below/../below/a.png"):
        assert read(ImageField(type="file"), name, settings).size == (64, 48)
    for name in ("../outside.png", str(outside), "link.png", "below", "nope.png", "", "a\0b", "/etc/passwd", None, 7, "x" * 5000):
        with pytest.raises(InvalidImage, match="no such file"):
            read(ImageField(type="file"), name, settings)


def test_large_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image_bytes())
    with pytest.raises(ImageTooLarge):
        read(ImageField(type="file"), "a.png", Settings(image_folder=tmp_path, max_body_bytes=10))
