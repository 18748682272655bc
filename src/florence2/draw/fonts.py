"""The choice of a font for each letter.

In: optionally a font of the caller's, and letters. Out: for each letter the first font that has it: the caller's, the font of this package
(Latin, Greek, Cyrillic, Hebrew, Arabic and more), or one of this machine's. If no font has a letter, a warning is logged once per script,
with the package to install. Knows nothing of pictures.
"""

from __future__ import annotations

import logging
import os
import threading
import unicodedata
from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageFont

from florence2.draw import system_fonts
from florence2.draw.cmap import CharacterMap, read_map
from florence2.errors import InvalidOption

FontInput = str | os.PathLike[str] | ImageFont.FreeTypeFont
OWN_FONT = Path(__file__).parent / "font" / "DejaVuSansCondensed.ttf"
REPLACEMENT = "\ufffd"
_CJK = ("HANGUL", "CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "BOPOMOFO", "FULLWIDTH", "HALFWIDTH")
_PICTURES = range(0x1F000, 0x20000)

_log = logging.getLogger("florence2.draw")
_reported: set[str] = set()
_reporting = threading.Lock()


class Face:
    """One font file, or a loaded font of the caller's."""

    def __init__(self, source: Path | ImageFont.FreeTypeFont) -> None:
        self._source = source
        self._map = read_map(source) if isinstance(source, Path) else _map_of(source)

    @property
    def fixed_size(self) -> float | None:
        """The size of a loaded font, which is kept; None for a font file."""
        return None if isinstance(self._source, Path) else self._source.size

    @property
    def is_readable(self) -> bool:
        """Whether its character map is readable."""
        return self._map is not None

    def has(self, letters: str) -> bool:
        """Whether the font has a glyph for each of some characters."""
        return self._map is not None and all(letter in self._map for letter in letters)

    def at(self, size: float) -> ImageFont.FreeTypeFont | None:
        """The font in a size in pixels; None if the font is not scalable or is damaged."""
        if isinstance(self._source, Path):
            return _loaded(self._source, size)
        return self._source if self._source.size == size else self._source.font_variant(size=size)


class Fonts:
    """The fonts of one drawing, in order of preference.

    Args:
        font: a font file or a font that Pillow has loaded, which is used first; None for the package's own.

    Raises:
        InvalidOption: it is not a usable font.
    """

    def __init__(self, font: FontInput | None = None) -> None:
        self._faces = [_face(OWN_FONT)] if font is None else [_users(font), _face(OWN_FONT)]

    @property
    def fixed_size(self) -> float | None:
        """The size of the caller's loaded font; None if there is none."""
        return self._faces[0].fixed_size

    def main(self, size: float) -> ImageFont.FreeTypeFont:
        """The preferred font."""
        return self._faces[0].at(size) or _own(size)

    def of(self, cluster: str, size: float, around: str) -> tuple[ImageFont.FreeTypeFont, str]:
        """The font for a letter with its marks, and the text to draw with it.

        Args:
            cluster: a character and its combining marks.
            size: the size of letters in pixels.
            around: the text around the letter.
        """
        for face in self._faces:
            if face.has(cluster) and (font := face.at(size)) is not None:
                return font, cluster
        face = _system_face(cluster, system_fonts.families(around), system_fonts.font_folders())
        if face is not None and (font := face.at(size)) is not None:
            return font, cluster
        if len(cluster) > 1:
            return self.of(cluster[0], size, around)  # no font has it together with its marks
        _report(cluster)
        return _own(size), REPLACEMENT


def _own(size: float) -> ImageFont.FreeTypeFont:
    font = _loaded(OWN_FONT, size)
    assert font is not None
    return font


def _users(font: FontInput) -> Face:
    """The caller's font."""
    if isinstance(font, ImageFont.FreeTypeFont):
        return Face(font)
    if not isinstance(font, (str, os.PathLike)):
        raise InvalidOption(
            f"font must be the path of a font file or what PIL.ImageFont.truetype gives, got {type(font).__name__:.60}", field="font"
        )
    path = Path(font)
    if not path.is_file():
        raise InvalidOption(f"there is no font file {str(path)[:200]!r}; give the path of a .ttf, .otf or .ttc file", field="font")
    face = _face(path)
    if face.at(16) is None or not face.is_readable:
        raise InvalidOption(f"{str(path)[:200]!r} holds no font with scalable letters; give a .ttf, .otf or .ttc file", field="font")
    return face


def _map_of(font: ImageFont.FreeTypeFont) -> CharacterMap | None:
    """The character map of a loaded font, from its file or content."""
    if isinstance(font.path, (str, os.PathLike)):
        return read_map(Path(os.fsdecode(font.path)), font.index)
    content = getattr(font, "font_bytes", None)
    return None if content is None else read_map(content, font.index)


@cache
def _face(path: Path) -> Face:
    return Face(path)


@lru_cache(maxsize=64)
def _loaded(path: Path, size: float) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(str(path), size)
    except (OSError, ValueError):  # damaged, or not scalable
        return None


@lru_cache(maxsize=4096)
def _system_face(cluster: str, families: tuple[str, ...], folders: tuple[Path, ...]) -> Face | None:
    """The first usable font of this machine that has a letter with its marks."""
    faces = map(_face, system_fonts.ranked(families, folders))
    return next((face for face in faces if face.has(cluster) and face.at(16) is not None), None)


def _report(letter: str) -> None:
    """Log once per script that no font has its letters."""
    name = unicodedata.name(letter, "")
    script = name.split(" ")[0].capitalize() if name else "unnamed characters"
    with _reporting:
        if script in _reported:
            return
        _reported.add(script)
    _log.warning(
        "no font here has %r (U+%04X, %s); %s is drawn in its place. Install one that has it (%s), or give the path of one as font=",
        letter,
        ord(letter),
        name or "unnamed",
        REPLACEMENT,
        _advice(letter, name),
    )


def _advice(letter: str, name: str) -> str:
    """The packages to install for a letter."""
    if ord(letter) in _PICTURES:
        return "on Debian and Ubuntu: fonts-symbola"
    package = "fonts-noto-cjk" if name.startswith(_CJK) else "fonts-noto-core"
    return (
        f"on Debian and Ubuntu: {package}; on Fedora: {'google-noto-sans-cjk-fonts' if name.startswith(_CJK) else 'google-noto-sans-fonts'}"
    )
