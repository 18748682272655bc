"""The command line: its commands, and what stands before one.

Nothing heavy is imported before a command needs it, so that help is there at once. Answers go to standard output, one clear
line for every error to standard error. Exit codes: 0, 2 for a mistake of the user's, 1 for everything else and when some
of several images failed.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any

import typer

from florence2.cli import cluster
from florence2.cli.bench import command as bench
from florence2.cli.doctor import doctor
from florence2.cli.evaluate import evaluate
from florence2.cli.examples import EXAMPLES
from florence2.cli.infer.command import InOrder, infer
from florence2.cli.keys import keys
from florence2.cli.label.command import label
from florence2.cli.mcp import mcp
from florence2.cli.models import models
from florence2.cli.options import Quiet, Verbose, with_verbosity
from florence2.cli.pull import pull
from florence2.cli.serve import serve
from florence2.cli.train import train
from florence2.cli.usage import usage
from florence2.cli.view import view
from florence2.cli.wrong_usage import UsageError, as_ours
from florence2.console import program
from florence2.errors import InvalidRequest
from florence2.version import __version__

# Without rich, help is plain text and comes in half the time.
app = typer.Typer(
    name="florence2",
    help="Florence-2 on your own machines: captions, boxes, masks and text of images.",
    epilog="florence2 COMMAND --help says more about one of them.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

NEW_OBJECTS = 50_000  # that garbage collection waits for

# Commands of two words: the first one with its job, and the second ones.
GROUPS: dict[str, tuple[str, tuple[Callable[..., None], ...]]] = {
    "bench": ("Measure servers under load.", (bench.serve,)),
    "cluster": ("Serve on several machines, with Ray.", (cluster.serve, cluster.status, cluster.stop)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ``arguments`` are those of the process if left out."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        _collect_rarely()
    with program():
        _refuse_empty(words)
        try:
            code = app(args=words, prog_name="florence2", standalone_mode=False)
        except UsageError as error:
            raise as_ours(error, typer.main.get_command(app), words) from error
        sys.exit(code)


def commands_of() -> dict[str, Any]:
    """All commands by their words: ``infer``, ``bench serve``."""
    found: dict[str, Any] = {}
    program: Any = typer.main.get_command(app)
    for word, command in program.commands.items():
        below = getattr(command, "commands", None)
        found |= {word: command} if below is None else {f"{word} {second}": one for second, one in below.items()}
    return found


def _collect_rarely() -> None:
    """Spare this process most garbage collections: 170,000 objects of PyTorch's modules stay until its end, and then go with it."""
    gc.set_threshold(NEW_OBJECTS)
    atexit.register(gc.freeze)


def _refuse_empty(words: Sequence[str]) -> None:
    """Refuse an argument with nothing in it: what a shell makes of a variable that is not set, and a path would take for this folder.

    Raises:
        InvalidRequest: there is one.
    """
    for before, word in pairwise(("", *words)):
        if not word.strip() or (word.endswith("=") and word.startswith("--") and word.count("=") == 1):
            name = word[:-1] if word.strip() else before if before.startswith("-") else "an argument"
            raise InvalidRequest(f"{name} is empty; is a variable of the shell not set?")


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"florence2 {__version__}")
        raise typer.Exit


def _print_help(context: typer.Context) -> None:
    """Where no command is named: print which there are, as an error."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


@app.callback(invoke_without_command=True)
def _global_options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version and leave.", is_eager=True, callback=_print_version)
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """What stands before a command."""
    _print_help(context)


for command in (infer, label, view, models, pull, serve, keys, usage, mcp, train, evaluate, doctor):
    app.command(epilog=EXAMPLES[command.__name__], cls=InOrder if command is infer else None)(with_verbosity(command))
for name, (job, commands) in GROUPS.items():
    group = typer.Typer(name=name, help=job, rich_markup_mode=None)
    group.callback(invoke_without_command=True)(_print_help)
    for command in commands:
        group.command(epilog=EXAMPLES[f"{name} {command.__name__}"])(with_verbosity(command))
    app.add_typer(group)
