"""The options that several commands have, each written once: the same letter and the same words everywhere.

In: what stands on the command line. Out: parameters for typer, with what the shell completes; and the model where none is
named, which is reported. Knows nothing of what a command does.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from florence2.console import NO_BARS, is_interactive, notify, reporting
from florence2.errors import InvalidRequest
from florence2.weights.aliases import ALIASES, DEMO, DEMO_IS, REAL


def model_names(incomplete: str) -> list[tuple[str, str]]:
    """The aliases that begin so, for the shell."""
    return [(alias.name, alias.description) for alias in ALIASES.values() if alias.name.startswith(incomplete)]


def one_of(*words: str) -> Callable[[str], list[str]]:
    """What completes an option that is one of some words."""

    def found(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return found


PRECISIONS = one_of("auto", "fp32", "bf16", "fp16", "int8")
DEVICES = one_of("auto", "cpu", "cuda", "cuda:0", "mps")

Adapter = Annotated[
    list[str] | None,
    typer.Option("--adapter", "-a", metavar="ADAPTER", help="A LoRA adapter to merge: folder or hub id. May be repeated."),
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:0, mps.", autocompletion=DEVICES)]
Precision = Annotated[str, typer.Option(metavar="PRECISION", help="auto, fp32, bf16, fp16, int8 (CPUs only).", autocompletion=PRECISIONS)]


def model_option(help: str, **options: Any) -> Any:
    """``--model``, in a command's own words."""
    return typer.Option("--model", "-m", metavar="MODEL", help=help, autocompletion=model_names, **options)


Model = Annotated[str | None, model_option("An alias (see florence2 models), alias@revision, hub id or folder.", show_default=DEMO)]


def chosen_model(name: str | None) -> str:
    """The model that was named; where none was, the demo, and a line that says so."""
    if name is None:
        notify(f"florence2: no --model is given, so {DEMO} answers, {DEMO_IS}; take --model {REAL} for those")
    return DEMO if name is None else name


def _be_quiet(context: typer.Context, value: bool) -> None:
    _set_flags(context)
    reporting.is_quiet = reporting.is_quiet or value
    if reporting.is_quiet or not is_interactive(sys.stderr):  # the hub's client would draw its bars all the same
        os.environ[NO_BARS] = "1"
    _check_verbosity()


def _be_verbose(value: bool) -> None:
    reporting.is_verbose = reporting.is_verbose or value
    _check_verbosity()


def _check_verbosity() -> None:
    if reporting.is_quiet and reporting.is_verbose:
        raise InvalidRequest("--quiet and --verbose are given; leave one of them out")


def _set_flags(context: typer.Context) -> None:
    """Let messages call things as this command's options do."""
    params = (param for param in context.command.params if param.param_type_name == "option")
    reporting.flags = {str(param.name): max(param.opts, key=len) for param in params}


Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Errors alone on standard error: no notices, no progress.", callback=_be_quiet, is_eager=True)
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="More on standard error: what is loaded, from where.", callback=_be_verbose, is_eager=True)
]


def with_verbosity(command: Callable[..., None]) -> Callable[..., None]:
    """The command with ``--quiet`` and ``--verbose``, which act before anything else of it does."""

    @wraps(command)
    def run(*arguments: Any, quiet: bool = False, verbose: bool = False, **options: Any) -> None:
        command(*arguments, **options)

    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in (("quiet", Quiet), ("verbose", Verbose))
    ]
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    return run
