"""Prompts as requests hold them: parsed within the server's limit on their length. Knows no API."""

from __future__ import annotations

from florence2.errors import PromptTooLong
from florence2.tasks.prompt import Prompt, Region, parse_prompt


def parse_bounded(prompt: str, text: str | None, region: Region | None, allow_unknown_tag: bool, max_chars: int) -> Prompt:
    """One prompt, parsed.

    Args:
        prompt: as ``parse_prompt`` takes it, and so are ``text``, ``region`` and ``allow_unknown_tag``.
        text: the text of a task that needs one.
        region: the region of a task that needs one.
        allow_unknown_tag: let a tag that is none of the fifteen pass.
        max_chars: the most characters of prompt and text together.

    Raises:
        PromptTooLong: it has more.
        InvalidPrompt, UnknownTask, InvalidRegion: it is wrong.
    """
    length = len(prompt) + len(text or "")
    if length > max_chars:
        raise PromptTooLong(f"a prompt has at most {max_chars} characters here, got {length}; shorten it", field="prompt")
    return parse_prompt(prompt, text=text, region=region, allow_unknown_tag=allow_unknown_tag)
