"""The questions of a labelling run about each of its pictures.

In: ``LabelOptions``. Out: the prompts that are asked first, all over one encoding of the picture, and those that follow from the answers
to them. Knows neither pictures nor engines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from florence2.errors import InvalidRequest
from florence2.labelling.options import LabelOptions
from florence2.results import Result
from florence2.tasks.naming import task_named
from florence2.tasks.prompt import parse_prompt
from florence2.tasks.table import TASKS
from florence2.tasks.vocabulary import STRUCTURAL

CLASS_TAG = "<OPEN_VOCABULARY_DETECTION>"
PHRASES_TAG = "<CAPTION_TO_PHRASE_GROUNDING>"
_TOKEN = re.compile("|".join(map(re.escape, (*STRUCTURAL, *TASKS))) + r"|<loc_[^<>]*>")


class Plan:
    """What each picture is asked.

    Args:
        options: those of the run.

    Raises:
        InvalidRequest: a text or class can't be asked for.
    """

    def __init__(self, options: LabelOptions) -> None:
        self._caption = None if options.phrases_from is None else task_named(options.phrases_from).tag
        prompts = [self._caption] if self._caption else []
        for tag in options.tasks:
            prompts += [_asked(tag, text, "text") for text in options.texts] if TASKS[tag].needs == "text" else [tag]
        prompts += [_asked(CLASS_TAG, name, "classes") for name in options.classes]
        self._first = list(dict.fromkeys(prompts))

    def first(self) -> list[str]:
        """The prompts that are asked at once, each once: a caption whose phrases are wanted, tasks, classes."""
        return list(self._first)

    def follow_up(self, results: Sequence[Result]) -> list[str]:
        """The prompts that follow from the answers to the first: the phrases of a caption, unless that is empty.

        Args:
            results: the answers to ``first``, in its order.
        """
        if self._caption is None:
            return []
        caption = " ".join(without_tokens(results[0].text).split())
        return [PHRASES_TAG + caption] if caption else []


def without_tokens(text: str) -> str:
    """The text with a space for each token that no prompt and no answer of words may hold: frames, tags, locations."""
    return _TOKEN.sub(" ", text)


def _asked(tag: str, text: str, field: str) -> str:
    """A tag with its text behind it, as engines and servers take it."""
    try:
        return parse_prompt(tag, text=text).inline
    except InvalidRequest as error:
        raise error.with_message(error.message, field=field) from None
