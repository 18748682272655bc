"""The process that decodes costly images: ``python -m florence2.server.inference.decoder_process BYTES SECONDS MAX_PIXELS``.

It reads one image after another from its input and writes pixels or an error to its output, as ``decoding.py`` expects them. It may use
so much memory, and so many seconds of processor time for each image; beyond these limits the system ends it. Knows nothing of the server,
and loads Pillow and NumPy alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from collections.abc import Iterator
from typing import IO, Any

from PIL import Image

from florence2.errors import InvalidImage, OutOfMemory
from florence2.image_files import Structure
from florence2.images import decode, open_file
from florence2.process_limits import limit_memory, limit_time

LENGTHS = struct.Struct("<LQ")
"""Before each message: the lengths of its JSON and of the bytes behind it."""

NAME = "the image"
_BAND_PIXELS = 2**20


def main() -> None:
    """Decode until the input ends."""
    max_bytes, max_seconds, max_pixels = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    limit_memory(max_bytes)
    _limit_threads()
    # A library that prints must not write between the pixels.
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    while (message := read_message(sys.stdin.buffer)) is not None:
        fields, data = message
        limit_time(max_seconds)
        for part in _answer(fields, data, max_pixels):
            write_all(output, part)


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], bytearray] | None:
    """The next message; None: the stream has ended.

    Raises:
        EOFError: it ends within one.
    """
    head = stream.read(LENGTHS.size)
    if not head:
        return None
    head += _read_exactly(stream, LENGTHS.size - len(head))
    json_length, data_length = LENGTHS.unpack(head)
    return json.loads(_read_exactly(stream, json_length)), _read_exactly(stream, data_length)


def write_all(stream: IO[bytes], data: bytes) -> None:
    """Write all of the data: one write to a pipe may take a part only."""
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]


def message_head(fields: dict[str, Any], data_length: int) -> bytes:
    """The beginning of a message; its data follow."""
    text = json.dumps(fields).encode()
    return LENGTHS.pack(len(text), data_length) + text


def _read_exactly(stream: IO[bytes], length: int) -> bytearray:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = stream.readinto(view)  # type: ignore[attr-defined] - every binary file that is used here has it
        if not count:
            raise EOFError
        view = view[count:]
    return data


def _answer(fields: dict[str, Any], data: bytearray, max_pixels: int) -> Iterator[bytes]:
    """The message about one image, in parts."""
    auto_orient = fields.pop("auto_orient")
    fields["size"] = None if fields["size"] is None else tuple(fields["size"])
    try:
        structure = Structure(data=bytes(data), **fields)
        if structure.format == "HEIF":
            _limit_heif_threads()
        opened = open_file(structure, NAME)
        if opened.width * opened.height > max_pixels:
            yield message_head({"error": "too_large", "size": opened.size}, 0)
            return
        picture = decode(structure, NAME, auto_orient=auto_orient, image=opened)
        yield message_head({"size": picture.size}, 3 * picture.width * picture.height)
    except InvalidImage as error:
        yield message_head({"error": "invalid", "message": error.message}, 0)
    except (OutOfMemory, MemoryError):
        yield message_head({"error": "memory"}, 0)
    else:
        yield from _bands(picture)


def _bands(picture: Image.Image) -> Iterator[bytes]:
    """The pixels of an image, some rows at a time."""
    num_rows = max(1, _BAND_PIXELS // picture.width)
    for top in range(0, picture.height, num_rows):
        yield picture.crop((0, top, picture.width, min(picture.height, top + num_rows))).tobytes()


def _limit_threads() -> None:
    """One thread for AVIF, which would take one for each core of the machine, and memory with each."""
    try:
        from PIL import AvifImagePlugin
    except ImportError:  # Pillow before 11.3
        return
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def _limit_heif_threads() -> None:
    """One thread for HEIC; its reader is loaded for the first such picture."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.options.DECODE_THREADS = 1


if __name__ == "__main__":
    main()
