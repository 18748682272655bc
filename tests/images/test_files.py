"""What a file says of itself decides what it may cost, metadata decide nothing, and the pixels stay as they are."""

from __future__ import annotations

import base64
import io
import itertools
import struct
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from florence2.errors import InvalidImage, OutOfMemory
from florence2.image_files import FORMATS, inspect
from florence2.images import open_file, read_image, size_of
from florence2.images.messages import MAX_MESSAGE_CHARS

SCENE = Path(__file__).parents[2] / "examples" / "scene.png"
SECONDS = 2.0  # far more than any of these takes, far less than it took


def photo(width: int = 96, height: int = 64) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(read_image(data))


def refused(image: object) -> str:
    with pytest.raises(InvalidImage) as caught:
        read_image(image)  # type: ignore[arg-type]
    assert len(caught.value.message) <= MAX_MESSAGE_CHARS
    return caught.value.message


def quickly(data: bytes) -> np.ndarray:
    began = time.perf_counter()
    picture = pixels(data)
    assert time.perf_counter() - began < SECONDS
    return picture


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """The file with chunks behind its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def test_metadata_of_a_png_decide_nothing() -> None:
    png = encoded(photo(), "PNG")
    long = bytes(5 * 2**20)
    noise = np.random.default_rng(1).bytes(3 * 2**20)
    for added in (
        [chunk(b"zTXt", b"a\0\0" + zlib.compress(long))],
        [chunk(b"zTXt", b"a\0\0" + zlib.compress(noise))],
        [chunk(b"tEXt", b"Comment\0" + b"x" * len(long))],
        [chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(long))],
        [chunk(b"iCCP", b"p\0\0" + zlib.compress(long))],
        [chunk(b"zTXt", b"a\0\0no zlib at all")],
        [chunk(b"tEXt", b"k%d\0v" % number) for number in range(200_000)],
        [chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(long))],
        [chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + b"\1\0\0\2\xff\xff\xff\xff\0\0\0\0" * 60_000)],
        [b"\0\0\0\1gAMA\0bad!"],
        [chunk(b"acTL", struct.pack(">II", 2**31, 0)), chunk(b"fcTL", bytes(26))],
    ):
        assert np.array_equal(quickly(with_chunks(png, *added)), pixels(png))


def test_a_png_in_too_many_chunks_is_refused() -> None:
    png = encoded(photo(), "PNG")
    assert "parts" in refused(with_chunks(png, chunk(b"tEXt", b"") * 300_000))


def test_png_data_in_many_small_chunks() -> None:
    png = encoded(photo(), "PNG")
    start = png.index(b"IDAT") - 4
    length = struct.unpack_from(">I", png, start)[0]
    data = png[start + 8 : start + 8 + length]
    pieces = b"".join(chunk(b"IDAT", data[at : at + 1]) for at in range(length))
    assert np.array_equal(quickly(png[:start] + pieces + png[start + 12 + length :]), pixels(png))


@pytest.mark.parametrize("kind", ["xmp", "raw"])
def test_the_orientation_in_a_pngs_texts_counts(kind: str) -> None:
    texts, exif = PngImagePlugin.PngInfo(), Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes()
    if kind == "xmp":
        texts.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>', zip=True)
    else:
        texts.add_text("Raw profile type exif", f"\nexif\n{len(block):8d}\n{block.hex()}\n", zip=True)
    assert read_image(encoded(photo(96, 64), "PNG", pnginfo=texts)).size == (64, 96)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpegs_fill_and_segments_cost_nothing(progressive: bool) -> None:
    jpeg = encoded(photo(), "JPEG", progressive=progressive)
    scan = jpeg.rindex(b"\xff\xda")
    for data in (
        jpeg[:2] + b"\xff" * 5_000_000 + jpeg[2:],
        jpeg[:scan] + b"\xff" * 5_000_000 + jpeg[scan:],
        jpeg[:-2] + b"\xff" * 5_000_000 + jpeg[-2:],
        jpeg[:2] + segment(0xFE, b"") * 100_000 + jpeg[2:],
        jpeg[:2] + segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000)) * 80 + jpeg[2:],
        jpeg[:2] + segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 80 + jpeg[2:],
        jpeg[:2] + segment(0xED, b"Photoshop 3.0\0" + bytes(60_000)) * 80 + jpeg[2:],
        jpeg + bytes(5_000_000),
    ):
        assert np.array_equal(quickly(data), pixels(jpeg))


def many_scans(jpeg: bytes, count: int) -> bytes:
    """The file with its last scan again and again."""
    start, end = jpeg.rindex(b"\xff\xda"), jpeg.rindex(b"\xff\xd9")
    return jpeg[:end] + jpeg[start:end] * count + jpeg[end:]


def test_a_jpeg_of_thousands_of_scans_is_refused_at_once() -> None:
    data = many_scans(encoded(Image.new("RGB", (2000, 1500)), "JPEG", progressive=True), 3000)
    began = time.perf_counter()
    assert "3010 scans" in refused(data)
    assert time.perf_counter() - began < SECONDS


def test_usual_progressive_jpegs_are_read() -> None:
    large = encoded(photo(6000, 4000), "JPEG", progressive=True)
    structure = inspect(large)
    assert structure is not None
    assert structure.work == 10 * 6000 * 4000
    assert read_image(large).size == (6000, 4000)


def tiff(width: int, height: int, tags: dict[int, tuple[int, int, int]], data: bytes = b"") -> bytes:
    """A little-endian TIFF: its data from byte 8 on, then its directory."""
    entries = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)} | tags
    directory = b"".join(struct.pack("<HHLL", tag, *entry) for tag, entry in sorted(entries.items()))
    return b"II*\0" + struct.pack("<L", 8 + len(data)) + data + struct.pack("<H", len(entries)) + directory + bytes(4)


def test_a_tiff_of_a_million_strips_is_refused_at_once() -> None:
    count = 1_000_000
    strips = struct.pack("<L", 8) * count
    data = tiff(1, count, {273: (4, count, 8), 278: (4, 1, 1), 279: (4, count, 8)}, strips)
    began = time.perf_counter()
    assert "strips" in refused(data)
    assert time.perf_counter() - began < SECONDS


def test_tiff_strips_that_share_their_bytes_are_refused() -> None:
    count = 1000
    offsets, lengths, body = struct.pack("<L", 8) * count, struct.pack("<L", 50_000) * count, bytes(50_000)
    tags = {259: (3, 1, 5), 273: (4, count, 8 + len(body)), 278: (4, 1, 1), 279: (4, count, 8 + len(body) + len(offsets))}
    assert "lie upon each other" in refused(tiff(100, count, tags, body + offsets + lengths))


def test_metadata_and_further_pages_of_a_tiff_decide_nothing() -> None:
    body = bytes(range(64))
    plain = {273: (4, 1, 8), 278: (4, 1, 8), 279: (4, 1, 64)}
    expected = pixels(tiff(8, 8, plain, body))
    assert np.array_equal(expected[:, :, 0], np.arange(64).reshape(8, 8))
    for odd in (
        {270: (2, 1_000_000, 8)},  # a description that is longer than the file
        {34675: (7, 2**31, 8)},
        {700: (1, 64, 2**31)},
        {34665: (4, 1, 8)},  # an EXIF directory that is none
        {284: (3, 2, 0x00010001)},  # two values where one belongs
        {305: (77, 1, 1)},
    ):
        assert np.array_equal(pixels(tiff(8, 8, plain | odd, body)), expected)
    pages = encoded(photo(), "TIFF", save_all=True, append_images=[photo()] * 300)
    assert np.array_equal(quickly(pages), np.asarray(photo()))


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({258: (3, 1, 8), 277: (3, 1, 5)}, "5 channels of 8 bits"),
        ({258: (3, 1, 32), 277: (3, 1, 3), 339: (3, 1, 3), 262: (3, 1, 2)}, "3 channels of 32 bits floating point"),
        ({258: (3, 1, 64), 339: (3, 1, 3)}, "1 channel of 64 bits floating point"),
        ({258: (3, 1, 16), 339: (3, 1, 3)}, "1 channel of 16 bits floating point"),
        ({258: (3, 1, 64), 339: (3, 1, 6)}, "complex"),
        ({259: (3, 1, 34887)}, "compression 34887"),
    ],
)
def test_tiffs_that_are_not_read_are_told_by_their_kind(tags: dict[int, tuple[int, int, int]], said: str) -> None:
    data = tiff(4, 4, {273: (4, 1, 8), 278: (4, 1, 4), 279: (4, 1, 640)} | tags, bytes(640))
    message = refused(data)
    assert said in message
    assert "convert it to 8 bits a channel" in message
    assert "damaged" not in message


def test_the_first_frame_is_all_that_counts() -> None:
    frames = [photo(), photo().rotate(90).resize((96, 64)), photo().rotate(30)]
    for file_format in ("GIF", "WEBP", "PNG", "TIFF", "MPO"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        first = Image.open(io.BytesIO(data)).convert("RGB")
        assert np.array_equal(pixels(data), np.asarray(first))
        assert len(inspect(data).data) < len(data) or file_format == "TIFF"  # type: ignore[union-attr]


def test_a_gifs_comments_cost_nothing() -> None:
    gif = encoded(photo(), "GIF")
    start = 13 + (3 << ((gif[10] & 7) + 1))
    comment = b"!\xfe" + b"\1x" * 200_000 + b"\0"
    assert np.array_equal(quickly(gif[:start] + comment + gif[start:]), pixels(gif))
    assert "parts" in refused(gif[:start] + b"!\xfe" + b"\1x" * 300_000 + b"\0" + gif[start:])


def test_a_webp_claims_its_canvas_before_it_is_opened() -> None:
    webp = encoded(photo().convert("RGBA"), "WEBP", lossless=True, exif=Image.Exif(), icc_profile=b"p" * 100)
    assert webp[12:16] == b"VP8X"
    claimed = webp[:24] + b"\xff\x3f\0\xff\x3f\0" + webp[30:]
    assert "more pixels" in refused(claimed)


def test_a_webp_canvas_has_the_sides_that_encoders_make() -> None:
    frames = encoded(photo(8, 8), "WEBP", save_all=True, append_images=[photo(8, 8).rotate(90)])
    wide = frames[:24] + (2**23 - 1).to_bytes(3, "little") + frames[27:]
    assert "claims 8388608 x 8 pixels, and no side may have more than 16384" in refused(wide)


def test_run_length_bitmaps_have_a_bound() -> None:
    header = b"BM" + struct.pack("<LHHL", 0, 0, 0, 54 + 1024) + struct.pack("<LllHHLLllLL", 40, 4000, 4000, 1, 8, 1, 0, 0, 0, 256, 0)
    assert "run-length" in refused(header + bytes(1024) + b"\1\1" * 5_000_000)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(20), "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(20), "HEIC"),
        (encoded(photo(), "JPEG2000"), "JPEG 2000"),
        (encoded(photo(), "JPEG2000", no_jp2=True), "JPEG 2000"),
        (encoded(photo(), "PPM"), "PPM"),
        (b"P3 1 1 255 0 0 0", "PPM"),
        (encoded(photo(64, 64), "ICO"), "ICO"),
        (encoded(photo(), "TGA") + bytes(8) + b"TRUEVISION-XFILE.\0", "TGA"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"8BPS\0\1" + bytes(20), "Photoshop"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF", "PostScript"),
        (b"<svg xmlns=''/>", "SVG"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b'{"error": "not found"}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\0\0\0\x18ftypmp42" + bytes(20), "video"),
        (b"\x93NUMPY\1\0", "numpy.load"),
        (b"PK\3\4" + bytes(20), "ZIP"),
        (base64.b64encode(encoded(photo(), "JPEG")), "base64"),
        (b"data:image/png;base64,iVBORw0KGgo=", "data URI"),
        (b"no picture at all", "begins with"),
    ],
)
def test_what_is_not_read_is_named_by_its_bytes(data: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("florence2.image_files.detect.find_spec", lambda _: None)  # without the extra that reads HEIC
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    for given in (data, path):
        message = refused(given)
        assert said in message
        assert "AVIF" in message  # the formats that are read
    assert "picture.jpg" in message


def test_texts_that_are_no_paths_are_told_what_they_are() -> None:
    jpeg = base64.b64encode(encoded(photo(), "JPEG")).decode()
    png = base64.b64encode(encoded(photo(), "PNG")).decode()
    for text in (jpeg, png, jpeg * 50, base64.b64encode(encoded(photo(), "AVIF")).decode()):
        assert "base64.b64decode" in refused(text)
    for text in (f"data:image/jpeg;base64,{jpeg}", "DATA:image/png,x"):
        assert "data URI" in refused(text)
    for text in (
        "https://example.com/a.png",
        "HTTP://example.com/" + "a" * 5000,
        "s3://bucket/a.png",
        "gs://b/a.png",
        Path("https://x/a.png"),
    ):
        assert "not a URL" in refused(text)
    assert "'/tmp/a.png'" in refused("file:///tmp/a.png")
    for text in ("x" * 100_000, "x\n" * 3000, "a\0b", "/" + "y" * 300):
        refused(text)


def test_formats_are_those_that_are_documented() -> None:
    assert FORMATS == ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
    for file_format in FORMATS:
        data = encoded(photo(), file_format)
        assert size_of(data) == (96, 64)
        assert read_image(data).size == (96, 64)


@pytest.mark.slow
def test_large_pictures_are_read_without_a_warning() -> None:
    large = Image.new("1", (13_000, 7_400))
    for file_format in ("PNG", "GIF"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = encoded(large, file_format)
            structure = inspect(data)
            assert structure is not None
            assert open_file(structure, "it").size == large.size
    assert read_image(encoded(large, "PNG")).size == large.size


def test_a_closed_image_is_told_so(tmp_path: Path) -> None:
    with Image.open(SCENE) as closed:
        pass
    with SCENE.open("rb") as file:
        without_file = Image.open(file)
    loaded = Image.open(SCENE)
    loaded.close()
    for image in (closed, without_file, loaded):
        assert "closed" in refused(image)
        assert "give the path" in refused(image)
    damaged = Image.open(io.BytesIO(SCENE.read_bytes()[:3000]))
    assert "damaged or incomplete" in refused(damaged)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "GIF", "WEBP"])
def test_one_lazy_image_in_eight_threads(file_format: str) -> None:
    data = encoded(photo(900, 600), file_format)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    for _ in range(5):
        image = Image.open(io.BytesIO(data))
        seen: list[object] = []
        start = threading.Barrier(8)

        def look(image: Image.Image = image, seen: list[object] = seen, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                seen.append(np.asarray(read_image(image)))
            except Exception as error:
                seen.append(error)

        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 8
        assert all(isinstance(picture, np.ndarray) and np.array_equal(picture, expected) for picture in seen)


def test_too_little_memory_is_not_called_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    image = Image.open(SCENE)
    data = SCENE.read_bytes()
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with image:
        for given in (data, image, SCENE):
            with pytest.raises(OutOfMemory, match="not enough memory to decode"):
                read_image(given)
    assert OutOfMemory.status == 503


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "F"])
def test_large_pictures_are_flattened_in_parts_like_small_ones(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    channels = 4 if mode == "RGBA" else 2
    image = (
        Image.fromarray(rng.integers(0, 65536, (70, 50), dtype=np.uint16))
        if mode == "I;16"
        else Image.fromarray(rng.normal(size=(70, 50)).astype(np.float32))
        if mode == "F"
        else Image.fromarray(rng.integers(0, 256, (70, 50, channels), dtype=np.uint8), mode)
    )
    whole = np.asarray(read_image(image))
    for size, module in itertools.product((1, 50, 333), ("florence2.images.modes._BAND_PIXELS",)):
        monkeypatch.setattr(module, size)
        assert np.array_equal(np.asarray(read_image(image)), whole)
