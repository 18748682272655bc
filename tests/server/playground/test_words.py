"""The table of the page's words against the modules that use it. Read as text: no browser is needed."""

from __future__ import annotations

import re

from florence2.server.playground.page_files import FILES
from florence2.tasks import TASKS

ROW = re.compile(r'^  "(?P<key>[\w.]+)": \[\s*"(?P<en>(?:[^"\\]|\\.)*)",\s*"(?P<ko>(?:[^"\\]|\\.)*)",?\s*\],$', re.MULTILINE)
TABLES = ("words.js", "page_words.js")
TABLE = "".join(FILES.read_text(name) for name in TABLES)
SOURCES = [FILES.read_text(name) for name in FILES.names if name.endswith((".js", ".html")) and name not in TABLES]
WORDS = {row["key"]: (row["en"], row["ko"]) for row in ROW.finditer(TABLE)}
SAME_IN_BOTH = {"page.docs", "run.shortcut", "code.curl", "code.python", "code.inferenceSdk", "code.openai", "code.json"}


def test_every_row_is_read_and_has_both_languages() -> None:
    assert len(WORDS) == len(re.findall(r'^  "[\w.]+":', TABLE, re.MULTILINE)) > 150
    for key, (english, korean) in WORDS.items():
        assert english, key
        assert re.search("[가-힣]", korean) or key in SAME_IN_BOTH or key.startswith("page.language"), key
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", korean)) or key.endswith(".one"), key


def test_every_key_that_is_asked_for_is_there_and_no_other() -> None:
    prefixes = {key.split(".")[0] for key in WORDS}
    whole, beginnings = set(), set()
    for text in SOURCES:
        whole |= {key for key in re.findall(r"[\"'`]([a-z]+\.\w+(?:\.\w+)*)[\"'`]", text) if key.split(".")[0] in prefixes}
        beginnings |= set(re.findall(r"`([a-z]+\.(?:[a-z]+\.)?)\$\{", text)) | set(re.findall(r'messages\("(\w+\.)"\)', text))
    whole -= {"key.one", "picture.jpg"}  # the form of a key in a comment, and a file's name
    assert whole <= set(WORDS)
    unused = {key for key in set(WORDS) - whole if not key.startswith(tuple(beginnings)) and key.removesuffix(".one") not in whole}
    assert unused == set()


def test_every_task_has_a_name_and_a_sentence() -> None:
    for tag in TASKS:
        assert {f"task.{tag.strip('<>')}", f"about.{tag.strip('<>')}"} <= set(WORDS), tag
