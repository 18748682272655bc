from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence2.client import InferenceConfiguration, InvalidInput, InvalidInputFormatError
from florence2.client.inputs import Encoded, encode, flattened, identify, is_many

AS_IT_IS = InferenceConfiguration()
ORIENTATION = 0x0112


def encoded(given: Any, configuration: InferenceConfiguration = AS_IT_IS) -> Encoded:
    return encode(identify(given), configuration)


def content(result: Encoded) -> bytes:
    assert result.as_json["type"] == "base64"
    return base64.b64decode(result.as_json["value"])


def picture_of(result: Encoded) -> Image.Image:
    return Image.open(io.BytesIO(content(result)))


def test_files_and_bytes_travel_unchanged(jpeg: Path, jpeg_bytes: bytes) -> None:
    for given in (jpeg, str(jpeg), jpeg.read_bytes(), bytearray(jpeg_bytes), memoryview(jpeg_bytes)):
        assert content(encoded(given)) == jpeg_bytes


def test_pictures_travel_as_jpeg_in_their_own_pixels(picture: Image.Image) -> None:
    turned = picture.copy()
    turned.getexif()[ORIENTATION] = 6
    sent = picture_of(encoded(turned))
    assert (sent.format, sent.size, sent.getexif().get(ORIENTATION)) == ("JPEG", picture.size, None)


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "CMYK", "1", "I;16"])
def test_modes_that_jpeg_does_not_have(mode: str, picture: Image.Image) -> None:
    image = Image.new("I;16", (8, 8), 40_000) if mode == "I;16" else picture.convert(mode)
    assert picture_of(encoded(image)).size == image.size


def test_array_channels(picture: Image.Image) -> None:
    array = np.asarray(picture)
    red = picture_of(encoded(array, InferenceConfiguration(array_channels="rgb"))).getpixel((5, 5))
    blue = picture_of(encoded(array)).getpixel((5, 5))
    assert isinstance(red, tuple)
    assert isinstance(blue, tuple)
    assert red[0] > 150 > red[2]
    assert blue[2] > 150 > blue[0]


def test_urls_travel_as_urls_unless_fetched(jpeg_bytes: bytes) -> None:
    source = identify("HTTPS://x.y/dog.jpg")
    assert encode(source, AS_IT_IS).as_json == {"type": "url", "value": "HTTPS://x.y/dog.jpg"}
    assert content(encode(source, AS_IT_IS, jpeg_bytes)) == jpeg_bytes
    with pytest.raises(InvalidInput, match="empty"):
        encode(source, AS_IT_IS, b"")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF"])
@pytest.mark.parametrize("prefix", ["", "data:image/any;base64,"])
def test_base64_travels_as_it_was_given(picture: Image.Image, format: str, prefix: str) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, format=format)
    for text in (
        base64.b64encode(buffer.getvalue()).decode(),
        base64.encodebytes(buffer.getvalue()).decode(),
        base64.urlsafe_b64encode(buffer.getvalue()).decode().rstrip("="),
    ):
        assert encoded(prefix + text).as_json == {"type": "base64", "value": prefix + text}


def test_missing_files_are_told_at_once(tmp_path: Path) -> None:
    for missing in ("/nope/x.jpg", "dog.jpeg", "n" * 40, "/9j/" + "nope/" * 20 + "x.jpg", tmp_path / "gone.png", "x" * 5000, "a\0b"):
        with pytest.raises(InvalidInputFormatError, match="there is no file") as caught:
            identify(missing)
        assert len(str(caught.value)) < 600
    with pytest.raises(InvalidInput) as caught:
        identify(tmp_path / "gone.png")
    assert repr(str(tmp_path / "gone.png")) in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "got None"),
        ("", "empty string"),
        (5, "got int"),
        ({"type": "url"}, "got dict"),
        (io.BytesIO(b"x"), r"read\(\) returns"),
        ("file:///tmp/x.jpg", "'/tmp/x.jpg'"),
        (b"", "empty"),
        (Path(), "folder"),
        (".", "folder"),
    ],
)
def test_what_can_be_no_image(given: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        encoded(given)
    assert caught.value.field == "image"


def test_empty_and_unreadable_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jpg"
    empty.touch()
    with pytest.raises(InvalidInput, match=r"empty\.jpg.*is empty"):
        encoded(empty)
    source = identify(empty)
    empty.unlink()
    with pytest.raises(InvalidInput, match="can't be read"):
        encode(source, AS_IT_IS)


def test_lists_are_flattened_in_order() -> None:
    assert flattened(["a", ["b", ("c",)], [], "d"]) == ["a", "b", "c", "d"]
    assert [is_many(given) for given in ([], (), "a", b"a", np.zeros((2, 2)))] == [True, True, False, False, False]


DOWN_TO_32 = InferenceConfiguration(client_downsizing_disabled=False, default_max_input_size=32)


def test_large_images_are_scaled_down(jpeg: Path, picture: Image.Image, jpeg_bytes: bytes) -> None:
    as_text = base64.b64encode(jpeg_bytes).decode()
    for given in (jpeg, picture, np.asarray(picture), jpeg_bytes, as_text, "data:image/jpeg;base64," + as_text):
        result = encoded(given, DOWN_TO_32)
        assert picture_of(result).size == (32, 24)
        assert (result.original_size, result.sent_size) == ((64, 48), (32, 24))


def test_small_images_stay_what_they_are(jpeg: Path, jpeg_bytes: bytes, picture: Image.Image) -> None:
    roomy = InferenceConfiguration(client_downsizing_disabled=False, default_max_input_size=64)
    assert encoded(jpeg, roomy) == Encoded({"type": "base64", "value": base64.b64encode(jpeg_bytes).decode()})
    as_text = base64.urlsafe_b64encode(jpeg_bytes).decode().rstrip("=")
    assert encoded(as_text, roomy) == Encoded({"type": "base64", "value": as_text})
    assert encoded(picture, roomy).sent_size is None
    unknown = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    assert content(encoded(unknown, roomy)) == unknown  # whether that is an image is for the server to say


def test_scaled_files_are_upright(picture: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = tmp_path / "turned.jpg"
    picture.save(path, exif=exif)
    result = encoded(path, DOWN_TO_32)
    assert (result.original_size, result.sent_size) == ((48, 64), (24, 32))
    assert picture_of(result).getexif().get(ORIENTATION) is None
    as_stored = InferenceConfiguration(client_downsizing_disabled=False, default_max_input_size=32, disable_preproc_auto_orientation=True)
    assert encoded(path, as_stored).original_size == (64, 48)
    assert content(encoded(path)) == path.read_bytes()


def test_byte_limit_refuses_or_scales() -> None:
    noise = Image.effect_noise((200, 200), 90)
    buffer = io.BytesIO()
    noise.save(buffer, format="PNG")
    strict = InferenceConfiguration(max_image_bytes=5000)
    as_text = base64.b64encode(buffer.getvalue()).decode()
    for given in (noise, buffer.getvalue(), as_text, np.asarray(noise)):
        with pytest.raises(InvalidInput, match=r"max_image_bytes=5000.*client_downsizing_disabled"):
            encoded(given, strict)
        scaling = InferenceConfiguration(max_image_bytes=5000, client_downsizing_disabled=False)
        assert len(content(encoded(given, scaling))) <= 5000
    with pytest.raises(InvalidInput, match="base64"):
        encoded("data:image/png;base64,A", strict)


def test_images_that_cannot_be_scaled(jpeg_bytes: bytes) -> None:
    with pytest.raises(InvalidInput, match="can't be read"):
        encoded(jpeg_bytes[:-60], DOWN_TO_32)


@pytest.mark.parametrize("kind", ["PPM", "TGA", "PCX", "SGI", "DDS", "QOI", "ICO", "JPEG2000", "WEBP", "GIF", "BMP", "TIFF"])
def test_base64_of_any_format_travels_as_it_is(kind: str, picture: Image.Image) -> None:
    if kind not in Image.SAVE:
        Image.init()
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    text = base64.b64encode(buffer.getvalue()).decode()
    for given in (text, text.rstrip("="), text.replace("+", "-").replace("/", "_"), "\n".join([text[:76], text[76:]])):
        assert encoded(given).as_json == {"type": "base64", "value": given}


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"])
def test_integers_within_bytes_are_taken(kind: str) -> None:
    array = np.zeros((8, 8, 3), kind)
    array[..., 2] = 127
    red = picture_of(encoded(array)).getpixel((4, 4))
    assert isinstance(red, tuple)
    assert abs(red[0] - 127) < 4
    for wrong in (-1, 256) if kind not in ("int8",) else (-1,):
        if wrong > 0 or kind.startswith("int"):
            array[0, 0, 0] = wrong
            with pytest.raises(InvalidInput, match="astype"):
                encoded(array)
