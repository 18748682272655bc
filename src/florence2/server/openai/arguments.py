"""What becomes of each argument of OpenAI's chat completions: honoured, without effect here, or refused by name.

``check_arguments`` refuses what would have changed the answer and can't: an argument that is ignored in silence is a wrong answer that
nobody notices. ``as_markdown`` is the table of the documentation. Knows nothing of what honoured arguments do.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from florence2.server.errors import UnsupportedArgument
from florence2.server.openai.schemas import ChatRequest


@dataclass(frozen=True)
class Refused:
    """An argument that is taken only where it says what holds anyway.

    Attributes:
        neutral: the values that are taken, besides null.
        reason: why all others are not, and what to do; the end of a sentence that begins with the argument's name.
    """

    neutral: tuple[Any, ...]
    reason: str


_NO_SAMPLING = "the answer is the most probable one that the search finds, always the same: leave it out"
_NO_TOOLS = "the model calls no tools: leave it out"
_NO_SOUND = "the model answers with text alone: leave it out"

OWN = (
    "text",
    "region",
    "num_beams",
    "no_repeat_ngram_size",
    "scores",
    "coordinates",
    "tiles",
    "tile_overlap",
    "tiles_only",
    "allow_unknown_tag",
)
"""Arguments of this project, by the names that they have everywhere in it."""

WITHOUT_EFFECT: dict[str, str] = {
    "seed": "the same request has the same answer anyway",
    "user": "for the caller's own books",
    "safety_identifier": "for the caller's own books",
    "metadata": "for the caller's own books",
    "service_tier": "there is one",
    "parallel_tool_calls": "there are no tools",
    "prediction": "speeds up other models",
    "prompt_cache_key": "pictures asked about lately are cached by their content",
    "prompt_cache_retention": "pictures asked about lately are cached by their content",
    "prompt_cache_options": "pictures asked about lately are cached by their content",
}
"""Arguments that are taken whatever they say, as they would not change the answer, each with the reason."""

REFUSED: dict[str, Refused] = {
    "temperature": Refused((0,), f"above 0 asks for a random answer, and {_NO_SAMPLING}, or send 0"),
    "top_p": Refused((1,), _NO_SAMPLING),
    "n": Refused((1,), "there is one answer to a request: leave it out or send 1"),
    "top_logprobs": Refused((0,), "only the tokens of the answer have their probability: leave it out or send 0"),
    "frequency_penalty": Refused((0,), f"{_NO_SAMPLING} (no_repeat_ngram_size forbids repetitions)"),
    "presence_penalty": Refused((0,), f"{_NO_SAMPLING} (no_repeat_ngram_size forbids repetitions)"),
    "logit_bias": Refused(({},), _NO_SAMPLING),
    "stop": Refused(([], ""), "an answer ends where the model ends it: leave it out, or send max_completion_tokens"),
    "tools": Refused(([],), _NO_TOOLS),
    "tool_choice": Refused(("none", "auto"), _NO_TOOLS),
    "functions": Refused(([],), _NO_TOOLS),
    "function_call": Refused(("none", "auto"), _NO_TOOLS),
    "modalities": Refused((["text"], []), _NO_SOUND),
    "audio": Refused((), _NO_SOUND),
    "reasoning_effort": Refused(("none",), "the model answers without thinking aloud: leave it out"),
    "verbosity": Refused(("medium",), "the task says how long an answer is (<CAPTION>, <DETAILED_CAPTION>, …): leave it out"),
    "web_search_options": Refused((), "the model sees the picture and nothing else: leave it out"),
    "moderation": Refused((), "nothing judges the answer: leave it out"),
    "store": Refused((False,), "nothing is kept here: leave it out"),
}
"""Arguments that are refused unless they say what holds anyway."""


def check_arguments(fields: Mapping[str, Any]) -> None:
    """Refuse arguments that can't be honoured, or that there are not; null counts as left out.

    Raises:
        UnsupportedArgument: ``field`` names the argument.
    """
    for name, value in fields.items():
        if value is None or name in ChatRequest.model_fields or name in WITHOUT_EFFECT:
            continue
        if name not in REFUSED:
            raise UnsupportedArgument(f"there is no argument {name[:64]!r}{_closest(name)}: leave it out", field=name[:64])
        if value not in REFUSED[name].neutral:
            raise UnsupportedArgument(f"{name} is not offered here: {REFUSED[name].reason}", field=name)


def as_markdown() -> str:
    """All arguments, as a table for the documentation."""
    honoured = ChatRequest.model_fields.items()
    rows = [(name, "yes, by `extra_body`" if name in OWN else "yes", field.description or "") for name, field in honoured]
    rows += [(name, "no effect", f"{reason[0].upper()}{reason[1:]}.") for name, reason in WITHOUT_EFFECT.items()]
    rows += [(name, _only(refused.neutral), f"Else refused: {refused.reason}.") for name, refused in REFUSED.items()]
    lines = ["| Argument | Taken | |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| `{name}` | {taken} | {_escaped(text)} |" for name, taken, text in rows)])


def _only(neutral: tuple[Any, ...]) -> str:
    """The values that are taken, for the table."""
    shown = [f"`{value!r}`".replace("'", '"').replace("False", "false") for value in neutral if value not in ("", [])]
    return f"only {' or '.join(shown)}" if shown else "only empty"


def _escaped(text: str) -> str:
    """A text of a cell; what stands between backticks is code already."""
    pieces = text.split("`")
    return "`".join(piece if index % 2 else piece.replace("<", "&lt;") for index, piece in enumerate(pieces))


def _closest(name: str) -> str:
    close = difflib.get_close_matches(name[:64], [*ChatRequest.model_fields, *WITHOUT_EFFECT, *REFUSED], n=1)
    return f" (did you mean {close[0]}?)" if close else ""
