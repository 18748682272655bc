"""Files that hold several pictures, told by how they begin: PDF documents and videos.

In: the first bytes. Out: what the file is, and what is missing to read it. The container of a video is named, too, so that its reader
never tries formats that open further files (playlists). Imports no reader.
"""

from __future__ import annotations

import re
from importlib.util import find_spec

from florence2.image_files import is_picture, is_read
from florence2.inputs.input import Medium

_PDF_START = 1024  # readers look for the mark in the first kilobyte
# How a container begins → FFmpeg's name of the format.
_CONTAINERS = tuple(
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rb"....ftyp(?!hei|hev|mif1|msf1|avi[fs]|jxl|jp)", "mov"),  # those are pictures
        (rb"....(moov|mdat|wide|free|skip|pnot)", "mov"),
        (rb"\x1aE\xdf\xa3", "matroska"),
        (rb".{8}AVI LIST", "avi"),
        (rb"FLV\x01", "flv"),
        (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
        (rb"OggS", "ogg"),
        (rb"\0\0\x01\xba", "mpeg"),
        (rb"\x47.{187}\x47.{187}\x47|.{4}\x47.{191}\x47.{191}\x47", "mpegts"),
    )
)
_READERS: dict[Medium, tuple[str, str, str]] = {
    "pdf": ("pypdfium2", "a PDF document; its pages are", "or render them as PNG"),
    "video": ("av", "a video; its frames are", "or save frames as JPEG or PNG"),
}


def medium_of(start: bytes) -> Medium | None:
    """What a file is that begins with these bytes; None for anything but a picture, a PDF document or a video."""
    if is_read(start):
        return "picture"
    if start.find(b"%PDF-", 0, _PDF_START + 5) >= 0:
        return "pdf"
    if container_of(start):
        return "video"
    return "picture" if is_picture(start) else None


def container_of(start: bytes) -> str | None:
    """FFmpeg's name of a video's container; None where it is none."""
    return next((name for pattern, name in _CONTAINERS if pattern.match(start)), None)


def missing_reader(medium: Medium) -> str | None:
    """What is missing to read a document or a video; None where nothing is."""
    if medium not in _READERS or find_spec(_READERS[medium][0]) is not None:
        return None
    _, what, otherwise = _READERS[medium]
    return f"it is {what} read with the extra '{medium}': pip install 'florence2-engine[{medium}]', {otherwise}"
