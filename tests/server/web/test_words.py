"""The tables of the pages' words against the modules that use them. Read as text: no browser is needed."""

from __future__ import annotations

import re

import pytest

from florence2.server.label_viewer.app import FILES as LABELS
from florence2.server.playground.page_files import FILES as PLAYGROUND
from florence2.server.web.page_files import PageFiles
from florence2.tasks import TASKS

ROW = re.compile(r'^  "(?P<key>[\w.]+)": \[\s*"(?P<en>(?:[^"\\]|\\.)*)",\s*"(?P<ko>(?:[^"\\]|\\.)*)",?\s*\],$', re.MULTILINE)
TABLES = ("words.js", "page_words.js")
SAME_IN_BOTH = {"page.docs", "run.shortcut", "code.curl", "code.python", "code.inferenceSdk", "code.openai", "code.json"}
PAGES = pytest.mark.parametrize(("files", "num_rows"), [(PLAYGROUND, 150), (LABELS, 60)], ids=["playground", "labels"])


def words_of(files: PageFiles) -> dict[str, tuple[str, str]]:
    """Key → English, Korean."""
    return {row["key"]: (row["en"], row["ko"]) for name in TABLES for row in ROW.finditer(files.read_text(name))}


@PAGES
def test_every_row_is_read_and_has_both_languages(files: PageFiles, num_rows: int) -> None:
    words = words_of(files)
    assert len(words) == sum(len(re.findall(r'^  "[\w.]+":', files.read_text(name), re.MULTILINE)) for name in TABLES) > num_rows
    for key, (english, korean) in words.items():
        assert english, key
        assert re.search("[가-힣]", korean) or key in SAME_IN_BOTH or key.startswith("page.language"), key
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", korean)) or key.endswith(".one"), key


@PAGES
def test_every_key_that_is_asked_for_is_there_and_no_other(files: PageFiles, num_rows: int) -> None:
    words = words_of(files)
    prefixes = {key.split(".")[0] for key in words}
    whole, beginnings = set(), set()
    for name in files.names:
        if not name.endswith((".js", ".html")) or name in TABLES:
            continue
        text = files.read_text(name)
        whole |= {key for key in re.findall(r"[\"'`]([a-z]+\.\w+(?:\.\w+)*)[\"'`]", text) if key.split(".")[0] in prefixes}
        beginnings |= set(re.findall(r"`([a-z]+\.(?:[a-z]+\.)?)\$\{", text)) | set(re.findall(r'messages\("(\w+\.)"\)', text))
    whole -= {"key.one", "picture.jpg"}  # the form of a key in a comment, and a file's name
    assert whole <= set(words)
    unused = {key for key in set(words) - whole if not key.startswith(tuple(beginnings)) and key.removesuffix(".one") not in whole}
    assert unused == set()


def test_every_task_has_a_name_and_a_sentence() -> None:
    for tag in TASKS:
        assert {f"task.{tag.strip('<>')}", f"about.{tag.strip('<>')}"} <= set(words_of(PLAYGROUND)), tag
