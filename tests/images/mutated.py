"""Valid files of every format that is read, and what strangers could make of them: the same files with some of their bytes changed.

``python -m tests.images.mutated SECONDS [SEED]`` reads one after another in processes with bounds and prints what is wrong: an error that
is none of this project's, a crash, or a file that costs far more than it may. Test runs read a few of the same files.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import struct
import sys
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, PngImagePlugin

from florence2.errors import InvalidImage, OutOfMemory
from florence2.images import read_image, size_of
from florence2.process_limits import limit_memory

SIZE = (24, 18)
MAX_S = 5.0  # of processor time for one file of some kB
MAX_PIXELS = 10**7
MAX_BYTES = 3 * 2**30
BATCH = 400
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0, 0x10000, 100_000)


def picture(mode: str = "RGB") -> Image.Image:
    """A picture with something in it."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    return image.convert("L").convert(mode) if mode in ("I;16", "I", "F", "LA") else image.convert(mode)


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """A file of the picture."""
    buffer = io.BytesIO()
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.from_pillow(picture(mode)).save(buffer, quality=60)
    else:
        picture(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@lru_cache(maxsize=1)
def valid_files() -> dict[str, bytes]:
    """Small files of all formats, in the kinds that their decoders have code of their own for."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "x" * 99, zip=True)
    texts.add_itxt("XML:com.adobe.xmp", "<x tiff:Orientation='6'/>", zip=True)
    frames: dict[str, Any] = {"save_all": True, "append_images": [picture("L").convert("RGB")] * 2}
    files = {f"PNG {mode}": encoded("PNG", mode) for mode in ("RGB", "RGBA", "P", "L", "LA", "1", "I;16")}
    files |= {f"JPEG {mode}": encoded("JPEG", mode) for mode in ("RGB", "L", "CMYK")}
    files |= {f"WEBP {mode}": encoded("WEBP", mode) for mode in ("RGB", "RGBA")}
    files |= {f"BMP {mode}": encoded("BMP", mode) for mode in ("RGB", "P", "1", "L", "RGBA")}
    files |= {f"TIFF {mode}": encoded("TIFF", mode) for mode in ("RGB", "P", "1", "F", "I;16", "CMYK", "LAB", "RGBA")}
    has_zstd = int(PIL.__version__.partition(".")[0]) >= 12  # older wheels have none, and trying breaks their memory
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "lzma", *(("zstd",) if has_zstd else ())):
        files[f"TIFF {compression}"] = encoded("TIFF", compression=compression)
    return files | {
        "PNG texts": encoded("PNG", pnginfo=texts, exif=exif, icc_profile=b"x" * 200),
        "PNG animated": encoded("PNG", **frames),
        "JPEG progressive": encoded("JPEG", progressive=True, exif=exif, comment=b"x" * 50),
        "WEBP lossless": encoded("WEBP", lossless=True, exif=exif),
        "WEBP animated": encoded("WEBP", **frames),
        "GIF": encoded("GIF", "P"),
        "GIF animated": encoded("GIF", **frames),
        "TIFF group4": encoded("TIFF", "1", compression="group4"),
        "TIFF pages": encoded("TIFF", **frames),
        "TIFF exif": encoded("TIFF", exif=exif),
        "AVIF": encoded("AVIF"),
        "AVIF alpha": encoded("AVIF", "RGBA", exif=exif),
        "HEIF": encoded("HEIF"),
    }


def mutated(rng: random.Random) -> tuple[str, bytes]:
    """One of the files with some changes, and its name."""
    name = rng.choice(list(valid_files()))
    data = bytearray(valid_files()[name])
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        rng.choice(CHANGES)(data, rng)
    if name.startswith("PNG") and rng.random() < 0.8:
        _mend_checksums(data)
    return name, bytes(data)


def _place(data: bytearray, rng: random.Random) -> int:
    """Where something is changed: mostly near the beginning, where structures are."""
    reach = rng.choice((64, 256, len(data)))
    return rng.randrange(max(1, min(reach, len(data))))


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2, 5)) if data else 0):
        data[_place(data, rng)] = rng.randrange(256)


def _set_number(data: bytearray, rng: random.Random) -> None:
    number, form = rng.choice(NUMBERS), rng.choice(("<H", ">H", "<I", ">I"))
    position = _place(data, rng)
    written = struct.pack(form, number & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))
    data[position : position + len(written)] = written


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    position = _place(data, rng)
    del data[position : position + rng.choice((1, 4, 12, 64))]


def _double(data: bytearray, rng: random.Random) -> None:
    position, length = _place(data, rng), rng.choice((1, 8, 64, 512))
    data[position:position] = data[position : position + length] * rng.choice((1, 2, 50))


def _splice(data: bytearray, rng: random.Random) -> None:
    other = rng.choice(list(valid_files().values()))
    data[_place(data, rng) :] = other[_place(bytearray(other), rng) :]


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (_flip, _flip, _set_number, _set_number, _cut, _remove, _double, _splice)


def _mend_checksums(data: bytearray) -> None:
    """Right checksums in a PNG, without which no decoder looks further."""
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 8 + length
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[position + 4 : end]))
        position = end + 4


def check(data: bytes) -> None:
    """Read a file: it is a picture, or refused by one of the errors for that."""
    with contextlib.suppress(InvalidImage, OutOfMemory):
        size = size_of(data)
        if size is not None and size[0] * size[1] > MAX_PIXELS:
            return  # costs what such pictures cost
        read = read_image(data)
        assert read.mode == "RGB"
        assert read.tobytes()


def main(seconds: float, seed: int) -> None:
    """Read files until the time is up."""
    warnings.simplefilter("error")
    valid_files()
    found, num_read, deadline = 0, 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        for what in _batch(range(seed, seed + BATCH)):
            found += 1
            print(what, flush=True)
        seed += BATCH
        num_read += BATCH
    print(f"{num_read} files, {found} findings, next seed {seed}")


def _batch(seeds: range) -> Iterator[str]:
    """What is wrong with the files of some seeds, read in a process that is started anew behind one that has ended."""
    start = seeds.start
    while start < seeds.stop:
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            _read_all(range(start, seeds.stop), writing)
        os.close(writing)
        with os.fdopen(reading) as stream:
            lines = stream.read().splitlines()
        status = os.waitpid(process, 0)[1]
        yield from (line for line in lines if not line.isdigit())
        last = max([start - 1, *(int(line) for line in lines if line.isdigit())])
        if status:
            yield f"seed {last}: {mutated(random.Random(last))[0]} ended the process with status {status}"
        start = last + 1


def _read_all(seeds: range, writing: int) -> None:
    limit_memory(MAX_BYTES)
    for seed in seeds:
        os.write(writing, f"{seed}\n".encode())
        name, data = mutated(random.Random(seed))
        signal.setitimer(signal.ITIMER_PROF, 4 * MAX_S)
        began = time.process_time()
        try:
            check(data)
        except BaseException:
            os.write(writing, f"seed {seed}: {name}: {traceback.format_exc()[-1500:]!r}\n".encode())
        if (took := time.process_time() - began) > MAX_S:
            os.write(writing, f"seed {seed}: {name} of {len(data)} bytes took {took:.1f} s\n".encode())
    os._exit(0)


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[1] == "write":
        Path("mutated.bin").write_bytes(mutated(random.Random(int(sys.argv[2])))[1])
    else:
        main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
