"""Every letter is drawn in a font that has it: the caller's, the package's, or one of the machine's; what none has is said once."""

from __future__ import annotations

import logging
import subprocess
import sys
import tomllib
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from florence2.draw import fonts, system_fonts
from florence2.draw.cmap import read_map
from florence2.draw.fonts import OWN_FONT, REPLACEMENT, Fonts
from florence2.draw.lettering import Lettering
from tests.draw.font_files import make_collection, make_font

ROOT = Path(__file__).parents[2]
HANGUL, HAN, KANA, THAI = "한국어고양이", "日本語自転車", "ひらカナ", "สวัสดี"


@pytest.fixture
def no_system_fonts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine whose only folder of fonts is this one."""
    monkeypatch.setattr(system_fonts, "font_folders", lambda: (tmp_path / "fonts",))
    monkeypatch.setattr(fonts, "_reported", set())
    return tmp_path / "fonts"


def shape(font: ImageFont.FreeTypeFont, char: str) -> bytes:
    return bytes(font.getmask(char))  # pyright: ignore[reportArgumentType]


def family(font: ImageFont.FreeTypeFont) -> Path:
    return Path(str(font.path))


def drawn(text: str, font: str | Path | None = None) -> np.ndarray:
    canvas = Image.new("L", (400, 40))
    Lettering(Fonts(font), 24).draw(ImageDraw.Draw(canvas), 2, 2, [text], "#FFFFFF")
    return np.asarray(canvas)


@pytest.mark.parametrize(
    "text",
    [
        "é ß ç ø ł ő ș ğ İ ñ å ž ŵ ạ ế ỹ þ ð",
        "Ελληνικά ἄνθρωπος",
        "Кириллица їґјњћә",
        "Հայերեն",
        "ქართული",
        "עברית",
        "العربية فارسی",
        "€₩₽„“…→²½™°",
    ],
)
def test_the_packages_own_font_draws_alphabets(no_system_fonts: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    own = Fonts()
    for char in text.replace(" ", ""):
        font, letters = own.of(char, 24, text)
        assert letters == char
        assert shape(font, char) != shape(font, "\uffff")  # not the box for a missing glyph
    assert not caplog.records


def test_a_label_of_several_scripts_has_each_letter_in_a_font_that_has_it(no_system_fonts: Path) -> None:
    make_font(no_system_fonts / "deep" / "NanumGothic.ttf", HANGUL)
    make_font(no_system_fonts / "ipag.ttf", HAN + KANA)
    runs = Lettering(Fonts(), 24)._runs("Straße 日本 한국")
    assert [(family(run.font).name, run.text) for run in runs] == [
        (OWN_FONT.name, "Straße "),
        ("ipag.ttf", "日本"),
        (OWN_FONT.name, " "),
        ("NanumGothic.ttf", "한국"),
    ]
    assert sum(run.width for run in runs) == pytest.approx(Lettering(Fonts(), 24).width("Straße 日本 한국"))
    assert not np.array_equal(drawn("日"), drawn("本"))


def test_han_characters_have_the_forms_of_the_letters_around_them(no_system_fonts: Path) -> None:
    japanese = make_font(no_system_fonts / "ipag.ttf", HAN + KANA)
    chinese = make_font(no_system_fonts / "wqy-microhei.ttf", HAN)
    assert family(Fonts().of("日", 24, "日本の")[0]) == japanese
    assert family(Fonts().of("日", 24, "日本")[0]) == chinese


def test_plain_letters_come_before_fancy_ones(no_system_fonts: Path) -> None:
    for name in ("NanumGothicBold.ttf", "NanumGothicLight.ttf", "NanumGothic.ttf", "A-unifont.ttf", "Aardvark.ttf"):
        make_font(no_system_fonts / name, HANGUL)
    ranked = system_fonts.ranked(system_fonts.families("한"), (no_system_fonts,))
    assert [path.name for path in ranked] == [
        "NanumGothic.ttf",
        "NanumGothicBold.ttf",
        "NanumGothicLight.ttf",
        "Aardvark.ttf",
        "A-unifont.ttf",
    ]


def test_damaged_fonts_and_boxes_for_everything_are_passed_over(no_system_fonts: Path) -> None:
    make_font(no_system_fonts / "LastResort.otf", THAI)
    (no_system_fonts / "NotoSansThai.ttf").write_bytes(b"\0\1\0\0 no font")
    (no_system_fonts / "empty.ttf").touch()
    good = make_font(no_system_fonts / "zz.ttf", THAI)
    cut = bytearray(good.read_bytes())
    (no_system_fonts / "NotoSans-cut.ttf").write_bytes(cut[:300])
    assert family(Fonts().of("ส", 24, "ส")[0]) == good


def test_what_no_font_has_is_said_once_for_each_script(no_system_fonts: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "florence2.draw"):
        first = drawn("한국 고양이")
        assert drawn("고양이").any()
        drawn("日本")
        drawn("🐈")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert "HANGUL SYLLABLE HAN" in said[0]
    assert "fonts-noto-cjk" in said[0]
    assert "font=" in said[0]
    assert "CJK" in said[1]
    assert "U+1F408" in said[2]
    assert all(len(message) < 500 for message in said)
    assert np.array_equal(first, drawn(f"{REPLACEMENT * 2} {REPLACEMENT * 3}"))


def test_the_callers_font_is_asked_first(no_system_fonts: Path, tmp_path: Path) -> None:
    path = make_font(tmp_path / "mine.ttf", "abc한")
    for font in (path, str(path), ImageFont.truetype(str(path), 24)):
        chosen = Fonts(font)
        assert family(chosen.of("a", 24, "a")[0]) == path
        assert family(chosen.of("한", 24, "한")[0]) == path
        assert family(chosen.of("z", 24, "z")[0]) == OWN_FONT


def test_a_font_from_memory_is_known_by_its_content(no_system_fonts: Path, tmp_path: Path) -> None:
    path = make_font(tmp_path / "mine.ttf", "abc한")
    with path.open("rb") as file:
        font = ImageFont.truetype(file, 24)
    assert Fonts(font).of("한", 24, "한")[0] is font
    assert Fonts(font).of("é", 24, "é")[0] is not font


def test_the_fonts_of_a_collection_are_told_apart(no_system_fonts: Path, tmp_path: Path) -> None:
    both = make_collection(tmp_path / "both.ttc", make_font(tmp_path / "one.ttf", HANGUL), make_font(tmp_path / "two.ttf", "ab𠀀"))
    first, second = read_map(both), read_map(both, 1)
    assert first is not None
    assert second is not None
    assert "한" in first
    assert "a" not in first
    assert "𠀀" in second  # beyond the basic plane, which another form of map holds
    assert "한" not in second
    assert read_map(both, 2) is None
    font = ImageFont.truetype(str(both), 20, index=1)
    assert Fonts(font).of("𠀀", 20, "𠀀")[0] is font


@pytest.mark.parametrize("char", "aéжאع한日\u0fff\u0378😀�")
def test_maps_say_what_the_font_library_says(char: str) -> None:
    from fontTools.ttLib import TTFont

    known = read_map(OWN_FONT)
    assert known is not None
    assert (char in known) == (ord(char) in (TTFont(OWN_FONT).getBestCmap() or ()))


def test_the_whole_of_the_own_fonts_map_is_read() -> None:
    from fontTools.ttLib import TTFont

    known = read_map(OWN_FONT)
    assert known is not None
    theirs = TTFont(OWN_FONT).getBestCmap() or {}
    assert len(theirs) > 5000
    assert [code for code in range(0x20000) if not 0xD800 <= code <= 0xDFFF if (chr(code) in known) != (code in theirs)] == []


def test_marks_stay_with_their_letter(no_system_fonts: Path) -> None:
    assert [run.text for run in Lettering(Fonts(), 24)._runs("x\u0301y")] == ["x\u0301y"]
    width = Lettering(Fonts(), 24).width
    assert width("x\u0301") == pytest.approx(width("x"), abs=1)


def test_folders_of_every_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDIR", "W")
    monkeypatch.setenv("LOCALAPPDATA", "L")
    monkeypatch.setattr(sys, "platform", "win32")
    assert [folder.parts[-1] for folder in system_fonts.font_folders()] == ["Fonts", "Fonts"]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert Path("/System/Library/Fonts") in system_fonts.font_folders()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_DIRS", "/opt/share::/usr/share")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/you")
    expected = ["/home/you/.fonts", "/home/you/.local/share/fonts", "/opt/share/fonts", "/usr/share/fonts"]
    assert list(map(str, system_fonts.font_folders())) == expected
    monkeypatch.delenv("HOME")
    assert Path("/usr/share/fonts") in system_fonts.font_folders()


@pytest.mark.parametrize(("text", "package"), [("고양이 한국어", "fonts-nanum"), ("日本語の猫カナ", "fonts-ipafont-gothic")])
def test_real_fonts_of_the_machine_are_found(text: str, package: str) -> None:
    letters = [char for char in text if char != " "]
    found = [Fonts().of(char, 24, text) for char in letters]
    if any(letter == REPLACEMENT for _, letter in found):
        pytest.skip(f"no font of this machine has {unicodedata.name(letters[0])}; install {package}")
    for char, (font, _) in zip(letters, found, strict=True):
        assert shape(font, char) != shape(font, "\uffff")
    assert len({shape(font, char) for char, (font, _) in zip(letters, found, strict=True)}) == len(set(letters))


def test_importing_looks_at_no_fonts() -> None:
    script = (
        "import os; walked = []; os.walk = lambda *a, **k: walked.append(a) or iter(())\n"
        "import florence2.draw, PIL.Image; from florence2.results import Result\n"
        "r = Result('<OD>', 'boxes', (64, 64), '', '', boxes=[[1, 1, 9, 9]], labels=['é'])\n"
        "florence2.draw.annotate(PIL.Image.new('RGB', (64, 64)), r)\n"
        "print(walked)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_fonts_licence_travels_with_it() -> None:
    assert "Bitstream Vera" in OWN_FONT.with_name("LICENSE_DEJAVU").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "src/florence2/draw/font/LICENSE_DEJAVU" in project["license-files"]
