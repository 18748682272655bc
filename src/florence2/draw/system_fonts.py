"""The font files of this machine, ranked by how well they suit a text.

In: a text's preferred font families. Out: paths, first those of families that cover scripts beyond Latin, and of regular styles before
others. Folders are searched once, at the first letter that the package's own font lacks. No other program is started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
MAX_FILES = 20_000

# Families by parts of their file names, the best first: open fonts, then those of macOS and Windows. The letters around Han characters
# decide which language's forms are used.
_JAPANESE = ("notosansjp", "ipaex", "ipag", "takao", "vlgothic", "mplus", "hiragino", "ヒラギノ", "yugoth", "meiryo", "msgothic")
_KOREAN = ("notosanskr", "nanumgothic", "nanumbarungothic", "nanumsquare", "undotum", "baekmuk", "applesdgothic", "malgun", "gulim")
_CHINESE = ("notosanssc", "notosanstc", "wqy", "droidsansfallback", "pingfang", "stheiti", "msyh", "msjh", "simhei", "simsun")
_ALL_OF_THEM = ("notosanscjk", "sourcehansans")
_OTHERS = ("notosans", "nirmala", "leelawad", "segoeui", "seguisym", "arialunicode", "arial unicode", "freesans", "symbola")
_FANCY = (
    "bold",
    "italic",
    "oblique",
    "black",
    "light",
    "thin",
    "medium",
    "condensed",
    "mono",
    "serif",
    "myeongjo",
    "mincho",
    "script",
    "brush",
)
_LAST_RESORT = ("unifont",)  # letters of pixels
_NO_LETTERS = ("lastresort", "adobeblank")  # a box, or nothing, for every character


def families(text: str) -> tuple[str, ...]:
    """The preferred font families for a text, by parts of their names."""
    if any("\u3040" <= char <= "\u30ff" for char in text):  # kana
        return _JAPANESE
    if any("\u1100" <= char <= "\u11ff" or "\u3130" <= char <= "\u318f" or "\uac00" <= char <= "\ud7af" for char in text):
        return _KOREAN
    return _CHINESE


def font_folders() -> tuple[Path, ...]:
    """The font folders of this operating system."""
    home = Path.home() if os.environ.get("HOME") or sys.platform == "win32" else Path("/nonexistent")
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", str(home / "AppData" / "Local"))
        return Path(os.environ.get("WINDIR", r"C:\Windows"), "Fonts"), Path(local, "Microsoft", "Windows", "Fonts")
    if sys.platform == "darwin":
        return home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts"), Path("/System/Library/AssetsV2")
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    own = os.environ.get("XDG_DATA_HOME") or str(home / ".local/share")
    return home / ".fonts", *(Path(folder, "fonts") for folder in dict.fromkeys([own, *shared.split(":"), "/usr/share"]) if folder)


@lru_cache(maxsize=16)
def ranked(first: tuple[str, ...], folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """The font files in some folders, the best first.

    Args:
        first: the preferred families, from ``families``.
        folders: the folders, from ``font_folders``.
    """
    names = (*first, *_ALL_OF_THEM, *_CHINESE, *_JAPANESE, *_KOREAN, *_OTHERS)
    return tuple(sorted(_files(folders), key=lambda path: _rank(path, names)))


def _rank(path: Path, names: tuple[str, ...]) -> tuple[int, int, str]:
    name = path.name.lower().replace("-", "").replace("_", "")
    unknown = len(names) + any(part in name for part in _LAST_RESORT)
    family = next((index for index, part in enumerate(names) if part in name), unknown)
    return family, sum(part in name for part in _FANCY), str(path)


@lru_cache(maxsize=16)
def _files(folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """The font files in some folders and their subfolders."""
    return tuple(path for path, _ in zip((path for folder in folders for path in _walk(folder)), range(MAX_FILES), strict=False))


def _walk(folder: Path) -> Iterator[Path]:
    for folder_name, _, names in os.walk(folder, followlinks=False):
        for name in names:
            if name.lower().endswith(SUFFIXES) and not any(part in name.lower() for part in _NO_LETTERS):
                yield Path(folder_name, name)
