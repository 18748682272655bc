"""The shell commands of the pages, found wherever they stand: in fenced blocks of any shell, and as code in a sentence.

A block of ``sh`` or ``bash`` holds commands alone, a ``console`` holds them behind ``$`` with their output below, and a block
without a language holds commands if it begins with a program. A command ends where the shell says that it is complete.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.markdown import PAGES, ROOT

SCRIPTS = {"sh", "bash", "shell", "zsh"}
SESSIONS = {"console", "shell-session", "sh-session"}
PROGRAMS = {"make", "florence2", "curl", "python", "python3", "pip", "docker", "git", "jq", "base64"}

# As in tests.docs.markdown, and indented blocks (below a list's entry) as well.
_FENCE = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_GENERATED = re.compile(r"<!-- generated: [\w-]+ -->.*?<!-- end generated -->", re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_SETTINGS = re.compile(r"^(?:\w+=(?:'[^']*'|\"[^\"]*\"|\S*)\s+)*")


@dataclass(frozen=True)
class Command:
    """One command as it stands on a page."""

    page: str
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        """It without the variables set in front of it, roughly split."""
        return _SETTINGS.sub("", self.text.lstrip("( ")).split()

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}: {self.text}"


def commands(path: Path) -> list[Command]:
    """All commands of a page's blocks, in their order."""
    page = path.relative_to(ROOT).as_posix()
    text = path.read_text(encoding="utf-8")
    generated = [match.span() for match in _GENERATED.finditer(text)]
    found = []
    for block in _FENCE.finditer(text):
        if not block[2] and any(start < block.start() < end for start, end in generated):
            continue  # how a command is called, with names for what it is given
        first_line = text.count("\n", 0, block.start(3)) + 1
        found += [Command(page, first_line + offset, written) for offset, written in _of_block(block[2], block[3].splitlines())]
    return found


def mentioned(path: Path) -> list[str]:
    """Code in the sentences of a page."""
    return _CODE.findall(_FENCE.sub("", path.read_text(encoding="utf-8")))


def pages_with_commands() -> list[Path]:
    """Those whose commands are run: all with any, but for the Korean README, which has the README's (``test_readme_ko.py``)."""
    return [page for page in PAGES if commands(page) and page.name != "README.ko.md"]


def _of_block(language: str, lines: list[str]) -> Iterator[tuple[int, str]]:
    if language in SESSIONS:
        yield from _session(lines)
    elif language in SCRIPTS or (not language and lines and (lines[0].split() or [""])[0] in PROGRAMS):
        yield from _script(lines)


def _script(lines: list[str]) -> Iterator[tuple[int, str]]:
    pending, start = "", 0
    for number, line in enumerate(lines):
        start = start if pending else number
        pending += line + "\n"
        if _is_complete(pending):
            if pending.strip() and not pending.lstrip().startswith("#"):
                yield start, pending.strip()
            pending = ""
    assert not pending, f"a command without an end: {pending}"


def _session(lines: list[str]) -> Iterator[tuple[int, str]]:
    number = 0
    while number < len(lines):
        start, line = number, lines[number]
        number += 1
        if not line.startswith("$ "):
            continue
        written = line[2:] + "\n"
        while not _is_complete(written):
            assert number < len(lines), f"a command without an end: {written}"
            written += lines[number].removeprefix("> ") + "\n"
            number += 1
        yield start, written.strip()


def _is_complete(text: str) -> bool:
    if text.endswith("\\\n"):
        return False
    return not subprocess.run(["bash", "-n", "-c", text], capture_output=True, check=False).stderr
