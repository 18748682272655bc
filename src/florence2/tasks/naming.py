"""How people write the name of a task: with its brackets or without, in capitals or not, escaped by a page or a shell.

In: what somebody wrote. Out: the task or the tag that it must mean, or an error that names the nearest one and lists all. Which
texts go to the model as they are is decided in ``prompt``, and who repairs what is written is up to the caller: library and server
refuse, the command line runs what was meant. Knows nothing of texts, regions or images.
"""

from __future__ import annotations

import difflib
import html
import re
import unicodedata
from urllib.parse import unquote

from florence2.errors import UnknownTask
from florence2.tasks.table import TASKS, Task

# What a page, a shell or a copied text makes of the brackets.
_OF_NO_TAG = re.compile(r"^[\W_]+|[\W_]+$")
_NAMED_FIRST = re.compile(r"\W*([A-Z]+(?:_[A-Z]+)+)\b")
TAG_LIKE = re.compile(r"\s*(<\s*([A-Za-z][\w-]*(?: [\w-]+)*)\s*(?:>|$))")
# A name at the beginning, and what stands behind it. Brackets, capitals, or parts that are joined make it one: "caption this" is English.
_BEGINS = tuple(
    (tag, re.compile(rf"(<?)\s*({'[ _-]+'.join(tag.strip('<>').split('_'))})\s*(?:(>)|(?=[\s:<]))\s*:?\s*(.*)", re.IGNORECASE | re.DOTALL))
    for tag in sorted(TASKS, key=len, reverse=True)
)
_TASK_OF = {task.name: task for task in TASKS.values()}
_LONGEST_NAME = 40  # in a message, which lists all tasks besides


def tag_named(name: str) -> str:
    """The tag that a name would have, whether there is one or not."""
    return "<" + re.sub(r"[ -]+", "_", name.upper()) + ">"


def task_named(name: str) -> Task:
    """The task of a shell-safe name such as ``ocr-with-region``; capitals, underscores, spaces and brackets are taken as well.

    Raises:
        UnknownTask: there is none; the message lists all and names the nearest.
    """
    plain = re.sub(r"[\s_-]+", "-", name.strip().strip("<>").strip()).lower()
    if plain in _TASK_OF:
        return _TASK_OF[plain]
    shown = repr(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…")
    closest = _nearest(plain)
    hint = f"; did you mean {' or '.join(closest)}?" if closest else "."
    raise UnknownTask(f"unknown task {shown}{hint} There are {', '.join(_TASK_OF)}.", field="task")


def _nearest(name: str) -> list[str]:
    """The names that a name comes near: as its initials, by its letters, or by a word that is in them."""
    initials = [task for task in _TASK_OF if "-" in task and name == "".join(word[0] for word in task.split("-"))]
    holding = [task for task in _TASK_OF if len(name) > 3 and name in task][:3]
    alike = difflib.get_close_matches
    return initials or alike(name, _TASK_OF, n=1, cutoff=0.8) or holding or alike(name, _TASK_OF, n=1)


def meant_tag(prompt: str) -> str | None:
    """The tag that a prompt without one must mean: a tag's name alone, or a tag whose brackets were escaped or lost on the way."""
    plain = _unescaped(prompt)
    alone = tag_named(_OF_NO_TAG.sub("", plain))
    if alone in TASKS:
        return alone
    first = TAG_LIKE.match(plain)
    named = _NAMED_FIRST.match(plain)
    begins = [tag_named(first[2])] if first else [f"<{named[1]}>"] if named else []
    return next((tag for tag in (*begins, *(tag for tag in TASKS if tag in plain)) if tag in TASKS), None)


def with_tag(prompt: str) -> str:
    """The prompt with its tag as the table writes it, where it begins with the tag's name in another way; else as it is."""
    if any(tag in prompt for tag in TASKS):
        return prompt
    plain = _unescaped(prompt).strip()
    alone = tag_named(_OF_NO_TAG.sub("", plain))
    if alone in TASKS:
        return alone
    for tag, pattern in _BEGINS:
        if (match := pattern.match(plain)) and _is_marked(*match.group(1, 2, 3)):
            return tag + match[4]
    return plain if any(tag in plain for tag in TASKS) else prompt


def _is_marked(opening: str, name: str, closing: str | None) -> bool:
    """Whether a name at the beginning of a longer prompt is a tag rather than words of a sentence."""
    return bool(opening or closing) or name.isupper() or "_" in name or "-" in name or name.lower() == "od"


def _unescaped(prompt: str) -> str:
    """The prompt without what HTML, JSON and URLs make of brackets."""
    plain = re.sub(r"\\[ux](?:00)?3[ceCE]", lambda found: "<" if found[0][-1] in "cC" else ">", html.unescape(html.unescape(prompt)))
    return unicodedata.normalize("NFKC", unquote(plain))
