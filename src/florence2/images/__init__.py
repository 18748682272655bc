"""Any source of a picture made into RGB: a path, the bytes of a file, a Pillow image, or an array.

The one room that opens image files, for engine, server, client and data sets. What decoding costs is bounded by the file's structure
first (``image_files``, which also has the one list of formats). Every kind of file has one defined outcome, written down in
``docs/decisions/0004-pixels.md``; what holds no image is refused with what came and what to do. Knows nothing of prompts, models or torch.
"""

from __future__ import annotations

from florence2.images.frames import ANIMATED, has_frames, read_frames
from florence2.images.kinds import ImageInput
from florence2.images.read import UPRIGHT, decode, exif_orientation, load, open_file, read_bytes, read_image, size_of

__all__ = [
    "ANIMATED",
    "UPRIGHT",
    "ImageInput",
    "decode",
    "exif_orientation",
    "has_frames",
    "load",
    "open_file",
    "read_bytes",
    "read_frames",
    "read_image",
    "size_of",
]
