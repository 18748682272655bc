"""Prompts, tokens and answers of Florence-2.

In: a caller's prompt, and later the ids that the model generated. Out: the sentence for the model, and a result. Needs no torch, and the
``tokenizers`` library only to load a tokenizer. The table of tasks is imported at once; other names need NumPy and are imported at their
first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from florence2.tasks.table import TASKS, Task

if TYPE_CHECKING:
    from florence2.tasks.answer import interpret, parse
    from florence2.tasks.prompt import Prompt, build_prompt, expand_prompt, parse_prompt
    from florence2.tasks.tokenizer import Tokenizer

__all__ = ["TASKS", "Prompt", "Task", "Tokenizer", "build_prompt", "expand_prompt", "interpret", "parse", "parse_prompt"]

_LAZY = {
    "Prompt": "prompt",
    "Tokenizer": "tokenizer",
    "build_prompt": "prompt",
    "expand_prompt": "prompt",
    "interpret": "answer",
    "parse": "answer",
    "parse_prompt": "prompt",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"florence2.tasks.{_LAZY[name]}"), name)
