"""Which format a file has, told by its first bytes; and the names of what is not read.

The one list of formats. In: bytes. Out: the structure of a file that is read, or the name of what it is instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec

from florence2.image_files.heif import HEIF, read_heif
from florence2.image_files.jpeg import read_jpeg
from florence2.image_files.png import SIGNATURE, read_png
from florence2.image_files.small import read_avif, read_bmp, read_gif, read_webp
from florence2.image_files.structure import Structure, refuse
from florence2.image_files.tiff import read_tiff

_READERS: dict[str, tuple[re.Pattern[bytes], Callable[[bytes], Structure]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), read_jpeg),
    "PNG": (re.compile(re.escape(SIGNATURE)), read_png),
    "WEBP": (re.compile(rb"RIFF....WEBP", re.DOTALL), read_webp),
    "GIF": (re.compile(rb"GIF8[79]a"), read_gif),
    "BMP": (re.compile(rb"BM"), read_bmp),
    "TIFF": (re.compile(rb"II(\*\0|\0\*|\+\0)|MM(\0\*|\*\0|\0\+)"), read_tiff),
    "AVIF": (re.compile(rb"....ftyp(avi[fs]|mif1.{0,40}avif|msf1.{0,40}avis)", re.DOTALL), read_avif),
}

FORMATS = tuple(_READERS)
"""The formats that are always read, by Pillow's names; HEIF is, too, where pillow-heif is installed (the extra ``heif``).

Pillow knows more: some start other programs, some hide sizes until it is too late.
"""

READ_FORMATS = ", ".join(FORMATS).replace("WEBP", "WebP")
"""The same as messages and documentation name them."""

START_BYTES = 4096
"""So much of a file tells what it is."""

PICTURE_NAME = re.compile(
    r"\.(jpe?g?|jfif|png|webp|gif|bmp|tiff?|avif|hei[cf]|jp2|jxl|p[bfgnp]m|ico|tga|psd|exr|hdr|dng|cr[23]|nef|arw|orf|raf|rw2)$",
    re.IGNORECASE,
)
"""How the names of picture files end, of those that are read and of others."""

_CONVERT = "convert it to JPEG or PNG"
# What people send instead, and what they should do. The first that fits counts: videos, pictures in other formats, all else.
_VIDEOS: tuple[tuple[str, str, str], ...] = (
    (r"....ftyp(qt  |mp4|isom|M4V|iso|avc1|3gp)", "a video", "send single frames as JPEG or PNG"),
    (r"\x1aE\xdf\xa3|RIFF....AVI |....moov|....mdat", "a video", "send single frames as JPEG or PNG"),
)
_PICTURES: tuple[tuple[str, str, str], ...] = (
    (
        HEIF.pattern.decode(),
        "a HEIC picture, whatever its name says",
        "install what reads it (pip install 'florence2-engine[heif]'), or convert it to JPEG "
        "(an iPhone: Settings, Camera, Formats, Most Compatible)",
    ),
    (r"....jP  |\xff\x4f\xff\x51", "a JPEG 2000 picture", _CONVERT),
    (r"....JXL |\xff\x0a", "a JPEG XL picture", _CONVERT),
    (r"P[1-7][ \t\r\n#]|P[fF]\n|PyP[\r\n]|P[yCf][ \t\n]", "a PPM, PGM, PBM or PFM picture", _CONVERT),
    (r"\0\0[\1\2]\0[^\0]", "an icon (ICO or CUR)", _CONVERT),
    (r"icns", "an icon (ICNS)", _CONVERT),
    (r"8BPS", "a Photoshop document", _CONVERT),
    (r"%!PS|\xc5\xd0\xd3\xc6", "a PostScript document", _CONVERT),
    (r"DDS |v/1\x01|#\?RADIANCE|qoif|gimp xcf|\xd7\xcd\xc6\x9a", "a picture in a format that is not read here", _CONVERT),
    (r"\x0a[\0\2-\5]\x01[\1\2\4\x08]|\x01\xda[\0\1][\1\2]", "a picture in a format that is not read here", _CONVERT),
    (r"(.{128})DICM", "a DICOM file", "export its picture as PNG"),
    (r".[\0\1][\1-\3\x09-\x0b].{13}[\x08\x10\x18\x20]", "a TGA picture", _CONVERT),
)
_OTHERS: tuple[tuple[str, str, str], ...] = (
    (r"%PDF", "a PDF document", "render its pages as PNG"),
    (r"\x93NUMPY", "a NumPy file", "load it with numpy.load and give the array"),
    (r"PK\x03\x04", "a ZIP archive", "unpack it and give its pictures"),
    (r"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf", "a compressed archive", "unpack it and give its pictures"),
    (r"version https://git-lfs", "a Git LFS pointer and not the picture itself", "run `git lfs pull`"),
    (r"data:image/", "a data URI", "decode the base64 behind its comma and give those bytes"),
    (r"/9j/|iVBORw0K|R0lGOD|UklGR|SUkqA|TU0AK|AAAA..Z0eX", "base64 text of a picture", "give what base64.b64decode makes of it"),
    (r"https?://", "a URL", "fetch it and give what it holds"),
    (r"(\xef\xbb\xbf)?\s*(<\?xml|<svg|<!DOCTYPE svg)", "an SVG or XML text", "render it as PNG"),
    (r"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)", "an HTML page", "look whether its address leads to the picture itself"),
    (r"\s*[{\[]", "a JSON text", "look whether it is an error message of where it came from"),
)
_KINDS = tuple(
    (re.compile(pattern.encode("latin-1"), re.DOTALL | re.IGNORECASE), what, advice)
    for pattern, what, advice in (*_VIDEOS, *_PICTURES, *_OTHERS)
)
_FOREIGN_PICTURES = tuple(pattern for pattern, *_ in _KINDS[len(_VIDEOS) : len(_VIDEOS) + len(_PICTURES)])
_TGA_END = b"TRUEVISION-XFILE.\0"


def inspect(data: bytes, at: int | None = None) -> Structure | None:
    """The structure of an image file; None where its format is not read here.

    Args:
        data: the file.
        at: where one of the pages of a TIFF begins; None for the first.

    Raises:
        InvalidImage: a structure that no valid picture has.
    """
    structure = _read(data, at)
    if structure is not None and structure.size is not None and 0 in structure.size:
        refuse(f"the picture has no pixels: its size is {structure.size[0]} x {structure.size[1]}")
    return structure


def _read(data: bytes, at: int | None) -> Structure | None:
    for pattern, read in _READERS.values():
        if pattern.match(data):
            return read(data) if at is None else read_tiff(data, at)
    return read_heif(data) if _is_heif(data) else None


def format_of(start: bytes) -> str | None:
    """The format of a file that begins with these bytes, 64 or more of them, by Pillow's name; None where it is not read here."""
    found = next((name for name, (pattern, _) in _READERS.items() if pattern.match(start)), None)
    return "HEIF" if found is None and _is_heif(start) else found


def is_read(start: bytes) -> bool:
    """Whether a file that begins with these bytes, 64 or more of them, has one of the formats that are read."""
    return format_of(start) is not None


def is_picture(start: bytes) -> bool:
    """Whether a file that begins with these bytes, 64 or more of them, is a picture, in a format that is read or in another."""
    return is_read(start) or any(pattern.match(start) for pattern in _FOREIGN_PICTURES)


def _is_heif(start: bytes) -> bool:
    """Whether a file is a HEIC or HEIF picture, and what reads it is installed."""
    return HEIF.match(start) is not None and find_spec("pillow_heif") is not None


def describe(data: bytes) -> str:
    """What content that is not read is, and what to do with it."""
    for pattern, what, advice in _KINDS:
        if pattern.match(data):
            return f"it is {what}; {advice} ({READ_FORMATS} are read). It begins with {data[:12]!r}"
    if data.endswith(_TGA_END):
        return f"it is a TGA picture; {_CONVERT} ({READ_FORMATS} are read)"
    return f"not an image in a format that is read here ({READ_FORMATS}); it begins with {data[:12]!r}"
