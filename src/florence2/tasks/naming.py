"""The names of tasks in the spellings that users write: with or without brackets, in upper or lower case, escaped by a page or a shell.

In: a name or a prompt. Out: the task or tag that it means, or an error that names the nearest task and lists all. ``prompt`` decides which
texts go to the model unchanged. Callers decide what to do with a misspelt tag: the library and the server refuse it, the command line
corrects it. Knows nothing of texts, regions or images.
"""

from __future__ import annotations

import difflib
import html
import re
import unicodedata
from urllib.parse import unquote

from florence2.errors import UnknownTask
from florence2.tasks.table import TASKS, Task

_NAMED_FIRST = re.compile(r"\W*([A-Z]+(?:_[A-Z]+)+)\b")
TAG_LIKE = re.compile(r"\s*(<\s*([A-Za-z][\w-]*(?: [\w-]+)*)\s*(?:>|$))")
# A name at the start, and the text after it. Brackets, capitals or joined words make it a name: "caption this" is English.
_BEGINS = tuple(
    (tag, re.compile(rf"(<?)\s*({'[ _-]+'.join(tag.strip('<>').split('_'))})\s*(?:(>)|(?=[\s:<]))\s*:?\s*(.*)", re.IGNORECASE | re.DOTALL))
    for tag in sorted(TASKS, key=len, reverse=True)
)
_TASK_OF = {task.name: task for task in TASKS.values()}
_LONGEST_LOOK = 1000  # characters of a prompt in which a tag is looked for: long rows of accents take quadratic time to normalise
_LONGEST_NAME = 40  # in a message, which also lists all tasks


def tag_named(name: str) -> str:
    """The tag for a name, whether or not there is such a task."""
    return "<" + re.sub(r"[ -]+", "_", name.upper()) + ">"


def task_named(name: str) -> Task:
    """The task with a name such as ``ocr-with-region``; capitals, underscores, spaces and brackets are accepted too.

    Raises:
        UnknownTask: there is no such task; the message names the nearest and lists all.
    """
    plain = re.sub(r"[\s_-]+", "-", name.strip().strip("<>").strip()).lower()
    if plain in _TASK_OF:
        return _TASK_OF[plain]
    shown = repr(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…")
    closest = _nearest(plain)
    hint = f"; did you mean {' or '.join(closest)}?" if closest else "."
    raise UnknownTask(f"unknown task {shown}{hint} There are {', '.join(_TASK_OF)}.", field="task")


def _nearest(name: str) -> list[str]:
    """The nearest names: those with these initials, with similar letters, or that contain the name."""
    initials = [task for task in _TASK_OF if "-" in task and name == "".join(word[0] for word in task.split("-"))]
    holding = [task for task in _TASK_OF if len(name) > 3 and name in task][:3]
    alike = difflib.get_close_matches
    return initials or alike(name, _TASK_OF, n=1, cutoff=0.8) or holding or alike(name, _TASK_OF, n=1)


def meant_tag(prompt: str) -> str | None:
    """The tag that a prompt without a tag most likely means: a name alone, or a tag whose brackets were escaped or lost; or None."""
    plain = _unescaped(prompt[:_LONGEST_LOOK])
    alone = tag_named(_bare(plain)) if len(prompt) <= _LONGEST_LOOK else None
    if alone in TASKS:
        return alone
    first = TAG_LIKE.match(plain)
    named = _NAMED_FIRST.match(plain)
    begins = [tag_named(first[2])] if first else [f"<{named[1]}>"] if named else []
    return next((tag for tag in (*begins, *(tag for tag in TASKS if tag in plain)) if tag in TASKS), None)


def with_tag(prompt: str) -> str:
    """The prompt with its tag in the table's spelling if it starts with a tag in another spelling; else unchanged."""
    if any(tag in prompt for tag in TASKS):
        return prompt
    plain = _unescaped(prompt).strip()
    alone = tag_named(_bare(plain))
    if alone in TASKS:
        return alone
    for tag, pattern in _BEGINS:
        if (match := pattern.match(plain)) and _is_marked(*match.group(1, 2, 3)):
            return tag + match[4]
    return plain if any(tag in plain for tag in TASKS) else prompt


def _bare(text: str) -> str:
    """The text without the characters around it that pages, shells and copied texts put in place of brackets."""
    places = [place for place, sign in enumerate(text) if sign.isalnum()]
    return text[places[0] : places[-1] + 1] if places else ""


def _is_marked(opening: str, name: str, closing: str | None) -> bool:
    """Whether a name at the start of a longer prompt is a tag, and not words of a sentence."""
    return bool(opening or closing) or name.isupper() or "_" in name or "-" in name or name.lower() == "od"


def _unescaped(prompt: str) -> str:
    """The prompt with escapes of HTML, JSON and URLs resolved."""
    plain = re.sub(r"\\[ux](?:00)?3[ceCE]", lambda found: "<" if found[0][-1] in "cC" else ">", html.unescape(html.unescape(prompt)))
    return unicodedata.normalize("NFKC", unquote(plain))
