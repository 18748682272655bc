"""Pictures, or what claims to be one. Each is sent as base64 in ``/infer/lmm``, as a form, as a whole body, and as a data URI in a chat."""

from __future__ import annotations

import zipfile
from io import BytesIO

from tests.server.fakes import image_bytes
from tests.server.hostile.cases import Case
from tests.server.hostile.files import (
    MB,
    animation,
    bmp_of,
    boxed,
    boxed_of,
    exif_in_a_circle,
    exploit,
    gif_of,
    gif_of_frames,
    jpeg_of,
    jpeg_with_exif,
    png,
    png_text_of,
    png_with_texts,
    tiff_in_a_circle,
    tiff_of,
    webp_of,
    zeros,
)

BAD, LARGE = "invalid_image", "image_too_large"
JPEG, PNG, GIF = image_bytes(kind="JPEG"), image_bytes(), image_bytes(kind="GIF")
OVER = "more than 50000000 pixels"


def zipped(name: str) -> bytes:
    """A ZIP archive of one file."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "<script>")
    return buffer.getvalue()


BOMBS = [
    Case("PNG of 300 MB of zeros for 64 x 48 pixels", png(data=zeros(300 * MB)), 200),
    Case("PNG of 300 MB of zeros, 10,000 x 10,000", png(10_000, 10_000, data=zeros(300 * MB)), 413, LARGE, OVER),
    Case("PNG whose texts, EXIF and profile grow to 300 MB each", png_with_texts(300 * MB), 200),
    Case("PNG with a text of 5 MB", png_text_of("x" * 5 * MB), 200),
    Case("GIF of 10,000 frames", gif_of_frames(10_000), 200),
    Case("WebP of 500 frames", animation("WEBP", 500), 200),
    Case("TIFF of 500 pages", animation("TIFF", 500), 200),
    Case("TIFF whose pages lead in a circle", tiff_in_a_circle(), 200),
    Case("JPEG whose EXIF leads in a circle", jpeg_with_exif(exif_in_a_circle()), 200),
    Case("JPEG with 64 kB of EXIF of nothing", jpeg_with_exif(bytes(65_000)), 200),
]
CLAIMS = [
    Case("PNG of 10,000 x 10,000", png(10_000, 10_000), 413, LARGE, OVER),
    Case("PNG of 2^31 - 1 x 2^31 - 1", png(2**31 - 1, 2**31 - 1), 413, LARGE, "pixels"),
    Case("PNG of 100,000,000 x 1", png(100_000_000, 1), 413, LARGE, OVER),
    Case("JPEG of 10,000 x 10,000", jpeg_of(10_000, 10_000), 413, LARGE, OVER),
    Case("progressive JPEG of 65,500 x 65,500", jpeg_of(65_500, 65_500, progressive=True), 413, LARGE, "pixels"),
    Case("GIF of 10,000 x 10,000", gif_of(10_000, 10_000), 413, LARGE, OVER),
    Case("WebP of 10,000 x 10,000", webp_of(10_000, 10_000), 413, LARGE, OVER),
    Case("WebP of 8,388,608 x 5", webp_of(2**23, 5), 400, BAD, "no side may have more than 16384"),
    Case("BMP of 10,000 x 10,000", bmp_of(10_000, 10_000), 413, LARGE, OVER),
    Case("TIFF of 10,000 x 10,000", tiff_of(10_000, 10_000), 413, LARGE, OVER),
    Case("AVIF of 10,000 x 10,000", boxed_of("AVIF", 10_000, 10_000), 413, LARGE, OVER),
    Case("HEIC of 10,000 x 10,000", boxed_of("HEIF", 10_000, 10_000), 413, LARGE, OVER),
]
SIZES = [
    Case("PNG of 0 x 0", png(0, 0), 400, BAD, "no pixels"),
    Case("JPEG of 0 x 48", jpeg_of(0, 48), 400, BAD, "no pixels"),
    Case("GIF of 0 x 0", gif_of(0, 0), 400, BAD),
    Case("BMP of 0 x 0", bmp_of(0, 0), 400, BAD, "no pixels"),
    Case("BMP of -64 x 48", bmp_of(-64, 48), 400, BAD),
    Case("BMP of -2^31 x -2^31", bmp_of(-(2**31), -(2**31)), 413, LARGE),
    Case("TIFF of 0 x 0", tiff_of(0, 0), 400, BAD, "no pixels"),
    Case("PNG of 64 x 48 at 3 bits", png(depth=3), 400, BAD, "damaged"),
    Case("PNG of a kind of colours that there is not", png(colours=5), 400, BAD, "damaged"),
]
DAMAGED = [
    Case(f"{kind} cut in its middle", data[: len(data) // 2], 400, BAD, "damaged or incomplete")
    for kind, data in {
        "PNG": png_text_of("x")[:-20],
        "JPEG": image_bytes((256, 256), "JPEG"),
        "GIF": image_bytes((256, 256), "GIF"),
        "WebP": image_bytes((256, 256), "WEBP"),
        "TIFF": image_bytes((256, 256), "TIFF", compression="tiff_lzw"),
        "BMP": image_bytes(kind="BMP"),
        "AVIF": boxed("AVIF"),
        "HEIC": boxed("HEIF"),
    }.items()
] + [
    Case("the first bytes of a PNG", PNG[:8], 400, BAD),
    Case("the first bytes of a JPEG", JPEG[:3], 400, BAD),
    Case("the first bytes of a GIF", GIF[:6], 400, BAD),
    Case("the first bytes of a WebP", b"RIFF\0\0\0\0WEBP", 400, BAD),
    Case("the first bytes of an AVIF", boxed("AVIF")[:16], 400, BAD),
    Case("PNG with pixels that are no zlib", png(data=b"\xff" * 1000), 400, BAD, "damaged"),
]
POLYGLOTS = [
    Case("GIF that is a script too", GIF[:6] + b"/*" + GIF[8:] + b"*/=1;alert(1)", 200),
    Case("JPEG with a ZIP archive behind it", JPEG + zipped("x.html"), 200),
    Case("PNG with a page behind it", PNG + b"<html><script>alert(1)</script></html>", 200),
    Case("PNG with a PDF in a comment", png_text_of("%PDF-1.7 1 0 obj"), 200),
    Case("JPEG with a PHP comment", image_bytes(kind="JPEG", comment=b"<?php system($_GET['c']); ?>"), 200),
    Case("PNG behind a blank", b" " + PNG, 400, BAD, "image in a format that is read here"),
]
FOREIGN = [
    Case("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", 400, BAD, "SVG"),
    Case("SVG with entities", b"<?xml version='1.0'?><!DOCTYPE s [<!ENTITY a 'aa'>]><svg>&a;</svg>", 400, BAD, "SVG or XML"),
    Case("PDF", b"%PDF-1.7\n1 0 obj <<>>", 400, BAD, "a PDF document"),
    Case("video", b"\0\0\0\x18ftypmp42" + bytes(99), 400, BAD, "a video"),
    Case("WebM", b"\x1aE\xdf\xa3" + bytes(99), 400, BAD, "a video"),
    Case("text", b"just a text", 400, BAD, "image in a format that is read here"),
    Case("page", b"<!doctype html><html><body>", 400, BAD, "an HTML page"),
    Case("JSON", b'{"error": "not found"}', 400, BAD, "a JSON text"),
    Case("icon", b"\0\0\1\0\1\0\x10\x10\0\0" + bytes(99), 400, BAD, "an icon"),
    Case("Photoshop", b"8BPS\0\1" + bytes(99), 400, BAD, "a Photoshop document"),
    Case("PPM", b"P6 4 4 255\n" + bytes(48), 400, BAD, "a PPM"),
    Case("PostScript", b"%!PS-Adobe-3.0\n(%pipe%id) (r) file", 400, BAD, "a PostScript document"),
    Case("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99), 400, BAD, "a JPEG 2000 picture"),
    Case("JPEG XL", b"\xff\x0a" + bytes(99), 400, BAD, "a JPEG XL picture"),
    Case("DICOM", bytes(128) + b"DICM" + bytes(99), 400, BAD, "a DICOM file"),
    Case("archive", zipped("a.png"), 400, BAD, "a ZIP archive"),
    Case("gzip", b"\x1f\x8b\x08" + zeros(MB), 400, BAD, "a compressed archive"),
    Case("NumPy array", b"\x93NUMPY\1\0v\0{'descr': '|O'}", 400, BAD, "a NumPy file"),
    Case("pickle", exploit("/tmp/florence2-was-unpickled"), 400, BAD, "image in a format that is read here"),
    Case("program", b"\x7fELF\2\1\1" + bytes(99), 400, BAD, "image in a format that is read here"),
    Case("zeros", bytes(MB), 400, BAD, "image in a format that is read here"),
    Case("nothing", b"", 400, BAD, "Empty image payload"),
]

TABLE = [*BOMBS, *CLAIMS, *SIZES, *DAMAGED, *POLYGLOTS, *FOREIGN]
