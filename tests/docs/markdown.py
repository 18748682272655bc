"""The pages of the project and what they are made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    """One fenced block: its language, its content, and the page's line on which the content begins."""

    language: str
    content: str
    line: int
    follows_directly: bool  # only blank lines between it and the block before it


def fences(text: str) -> list[Fence]:
    found = []
    end = 0
    for match in _FENCE.finditer(text):
        found.append(
            Fence(match[1], match[2], text.count("\n", 0, match.start(2)) + 1, bool(found) and not text[end : match.start()].strip())
        )
        end = match.end()
    return found


def links(text: str) -> list[str]:
    """Where the page points, other sites left out."""
    return [target for target in _LINK.findall(_FENCE.sub("", text)) if not target.startswith(("http:", "https:", "mailto:"))]


def anchors(text: str) -> set[str]:
    """The names that headings can be linked by."""
    headings = _HEADING.findall(_FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
