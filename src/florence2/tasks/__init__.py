"""Prompts, tokens and answers of Florence-2: the only room that knows them.

In: what a caller asks, and later the ids that the model generated. Out: the sentence for the model, and a result. It needs
no torch, and the tokenizer's library only when one is loaded. The table is ready at once; the rest needs NumPy and is loaded when it
is first asked for.
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
