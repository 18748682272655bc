"""Prompts, tokens and answers of Florence-2: the only room that knows them.

In: what a caller asks, and later the ids that the model generated. Out: the sentence for the model, and a result. It needs
no torch, and the tokenizer's library only when one is loaded.
"""

from __future__ import annotations

from florence2.tasks.answer import interpret, parse
from florence2.tasks.prompt import Prompt, build_prompt, expand_prompt
from florence2.tasks.table import TASKS, Task
from florence2.tasks.tokenizer import Tokenizer

__all__ = ["TASKS", "Prompt", "Task", "Tokenizer", "build_prompt", "expand_prompt", "interpret", "parse"]
