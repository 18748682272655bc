"""README.ko.md says what README.md says: the same sections with the same commands, code, tables, links, pictures and figures.

What the words mean is not checked; that none of what can be run, clicked, seen or measured is missing is. A failure names the section of
README.md and what is missing or too much in its Korean.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest

import pytest

from docs import generate
from docs.korean import korean
from tests.docs.markdown import ROOT, fences

ENGLISH, KOREAN = "README.md", "README.ko.md"
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"<!-- generated: ([\w-]+) -->")
_TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)|<(?:img|source)\b[^>]*\bsrc(?:set)?=\"([^\"]+)\"")
_LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)|href=\"([^\"]+)\"")
_CODE = re.compile(r"`([^`\n]+)`")
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
_HANGUL = re.compile("[가-힣]")


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it, up to the next one."""

    level: int
    title: str
    text: str

    @property
    def prose(self) -> str:
        """The text without blocks of code, generated blocks, comments and the links between the languages."""
        text = re.sub(r"<!-- generated.*?<!-- end generated -->", "", _FENCE.sub("", self.text), flags=re.DOTALL)
        return re.sub(rf"<!--.*?-->|\]\((?:{ENGLISH}|{KOREAN})\)", "", text, flags=re.DOTALL)


def sections(page: str) -> list[Section]:
    text = (ROOT / page).read_text(encoding="utf-8")
    hidden = _FENCE.sub(lambda found: re.sub("^#", " ", found[0], flags=re.MULTILINE), text)  # a remark in code is no heading
    starts = [*re.finditer(r"^(#+) (.*)$", hidden, re.MULTILINE)]
    ends = [*(found.start() for found in starts[1:]), len(text)]
    return [Section(len(found[1]), found[2], text[found.end() : end]) for found, end in zip(starts, ends, strict=True)]


PAIRS = list(zip_longest(sections(ENGLISH), sections(KOREAN)))
BOTH = [pytest.param(english, korean, id=english.title) for english, korean in PAIRS if english is not None and korean is not None]


def difference(english: list[str], korean: list[str]) -> str:
    """What is missing in the Korean, and what is too much; empty where they are equal."""
    missing, extra = Counter(english) - Counter(korean), Counter(korean) - Counter(english)
    said = [f"missing: {', '.join(missing.elements())}"] if missing else []
    return "; ".join(said + ([f"not in {ENGLISH}: {', '.join(extra.elements())}"] if extra else []))


def pictures(text: str) -> list[str]:
    return [found[2] or found[3] for found in _PICTURE.finditer(text)]


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_headings_are_as_many_in_the_same_order() -> None:
    shown = [f"{a and a.title!r} / {b and b.title!r}" for a, b in PAIRS if a is None or b is None or a.level != b.level]
    assert shown == [], f"headings of {ENGLISH} / {KOREAN} that do not go together"
    assert all(_HANGUL.search(korean.title) for _, korean in PAIRS[1:] if korean is not None)


def test_each_page_leads_to_the_other_at_its_top() -> None:
    for page, other in ((ENGLISH, KOREAN), (KOREAN, ENGLISH)):
        assert f"]({other})" in "\n".join((ROOT / page).read_text(encoding="utf-8").splitlines()[:4])


@pytest.mark.parametrize(("english", "korean"), BOTH)
def test_commands_and_code_are_the_same(english: Section, korean: Section) -> None:
    ours, theirs = ([(fence.language, fence.content) for fence in fences(one.text)] for one in (english, korean))
    assert theirs == ours
    assert difference(_CODE.findall(english.prose), _CODE.findall(korean.prose)) == ""


@pytest.mark.parametrize(("english", "korean"), BOTH)
def test_links_and_pictures_are_the_same(english: Section, korean: Section) -> None:
    assert pictures(korean.text) == pictures(english.text)
    assert all(alt is None or _HANGUL.search(alt[1] or "가") for alt in _PICTURE.finditer(korean.text))
    targets = [[found[1] or found[2] for found in _LINK.finditer(one.prose)] for one in (english, korean)]
    assert difference(*targets) == ""


@pytest.mark.parametrize(("english", "korean"), BOTH)
def test_tables_have_the_same_rows_and_code(english: Section, korean: Section) -> None:
    blocks = _BLOCK.findall(english.text)
    assert [f"{name}-ko" for name in blocks] == _BLOCK.findall(korean.text), "a new block goes into IN_KOREAN of docs/generate.py"
    ours, theirs = ([rows(table) for table in _TABLE.findall(one.prose)] for one in (english, korean))
    assert [[len(row) for row in table] for table in theirs] == [[len(row) for row in table] for table in ours]
    for mine, their in zip(ours, theirs, strict=True):
        for row, translated in zip(mine, their, strict=True):
            assert [_CODE.findall(cell) for cell in translated] == [_CODE.findall(cell) for cell in row]


@pytest.mark.parametrize(("english", "korean"), BOTH)
def test_figures_are_the_same(english: Section, korean: Section) -> None:
    numbers = [_NUMBER.findall(_LINK.sub("", _PICTURE.sub("", _CODE.sub("", one.prose)))) for one in (english, korean)]
    assert difference(*numbers) == ""


@pytest.mark.parametrize(("english", "korean"), BOTH)
def test_nothing_is_left_untranslated(english: Section, korean: Section) -> None:
    ours, theirs = (
        [part.strip() for part in re.split(r"\n\s*\n|\n(?=[*|])", one.prose) if re.search("[A-Za-z가-힣]", part)]
        for one in (english, korean)
    )
    assert len(theirs) == len(ours), f"{len(ours)} paragraphs and entries in {ENGLISH}, {len(theirs)} in {KOREAN}"
    assert [part for part in theirs if not _HANGUL.search(part) and not part.startswith("| `")] == []


def test_generated_tables_are_translated_row_by_row() -> None:
    for name in generate.IN_KOREAN:
        english, translated = generate.BLOCKS[name](), generate.BLOCKS[f"{name}-ko"]()
        assert len(translated.splitlines()) == len(english.splitlines())
        assert _CODE.findall(translated) == _CODE.findall(english)
        assert difference(_NUMBER.findall(english), _NUMBER.findall(translated)) == ""
    with pytest.raises(KeyError, match="no translation of 'a new word'"):
        korean("| `code` | a new word |")


@pytest.mark.parametrize(
    ("english", "korean", "told"),
    [(["a", "b"], ["b"], "missing: a"), (["a"], ["a", "b"], f"not in {ENGLISH}: b"), (["a", "a"], ["a"], "missing: a"), (["a"], ["a"], "")],
)
def test_a_difference_is_told(english: list[str], korean: list[str], told: str) -> None:
    assert difference(english, korean) == told
