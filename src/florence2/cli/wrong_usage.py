"""Errors of usage, reported as all others are: one line that says what was wrong, what may be meant, and where help is.

In: what typer raises while it reads the command line. Out: an error of this project. Knows nothing of what commands do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from florence2.errors import InvalidRequest

# typer brings its own copy of click, or stands on click itself: in both, this is what a wrong call raises.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

# Parts of typer's messages on a value of the wrong kind → what was expected.
_KINDS = {"valid int": "a whole number", "valid float": "a number", "valid number": "a number", "valid bool": "yes or no"}
_LIMITS = {
    "at least {}": r"greater than or equal to (\S+)|x>=(\S+?)\.?$",
    "at most {}": r"less than or equal to (\S+)|x<=(\S+?)\.?$",
}


class WrongUsage(InvalidRequest):
    """A call that the command line does not understand."""

    code = "usage"


def as_ours(error: Any, group: Any, words: Sequence[str]) -> WrongUsage:
    """The error in this project's form.

    Args:
        error: a ``UsageError``.
        group: all commands.
        words: the whole command line.
    """
    name = next((word for word in words if word in group.commands), None)
    command, called = (group, "florence2") if name is None else (group.commands[name], f"florence2 {name}")
    if error.ctx is not None:
        command, called = error.ctx.command, error.ctx.command_path
    return WrongUsage(f"{_what(error, command, words).rstrip('.')}; see {called} --help")


def _what(error: Any, command: Any, words: Sequence[str]) -> str:
    kind, said = type(error).__name__, " ".join(error.format_message().split())
    commands = getattr(command, "commands", {})
    if kind == "NoSuchOption":
        return _no_such_option(error.option_name, command, commands)
    if kind == "MissingParameter" and error.param is not None:
        return f"{_name(error.param)} is missing"
    if kind == "BadOptionUsage":
        return f"{error.option_name} {'takes no value' if 'not take' in said else 'needs a value'}"
    if kind == "BadParameter" and error.param is not None:
        return f"{_name(error.param)} {_wrong_value(error.message, _value_of(error.param, words))}"
    if (word := next((word for word in words if repr(word) in said), None)) is not None and commands:
        options = {"--help", *(option for param in command.params for option in param.opts)}
        return f"there is no command {word}{_meant(word, (f'--{word}',) if f'--{word}' in options else commands)}"
    return said[:1].lower() + said[1:]


def _no_such_option(name: str, command: Any, commands: dict[str, Any]) -> str:
    """The message on an option that a command does not have."""
    if any(name in param.opts for other in commands.values() for param in other.params):
        return f"{name} goes behind the command"
    known = [option for param in command.params for option in (*param.opts, *param.secondary_opts) if option.startswith("--")]
    return f"there is no option {name}{_meant(name, known) if name.startswith('--') else ''}"


def _meant(word: str, known: Iterable[str]) -> str:
    """The nearest of what there is."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.55)
    return f" (did you mean {close[0]}?)" if close else ""


def _wrong_value(message: str, value: str | None) -> str:
    """What was expected, and what came."""
    expected = next((kind for part, kind in _KINDS.items() if part in message), None)
    for words, pattern in _LIMITS.items():
        if found := re.search(pattern, message):
            expected = words.format(found[1] or found[2])
    if expected is None:
        return f"can't be so: {message[:1].lower()}{message[1:]}"
    return f"must be {expected}{'' if value is None else f', got {value!r}'}"


def _value_of(param: Any, words: Sequence[str]) -> str | None:
    """What was given for an option, as it was written last."""
    found = None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if word in param.opts:
            found = following
        elif equals and name in param.opts:
            found = value
    return found


def _name(param: Any) -> str:
    """A parameter as it is written."""
    return max(param.opts, key=len) if param.param_type_name == "option" else param.metavar or param.name.upper()
