"""``florence2 pull``: a checkpoint onto this machine. In: its name. Out: its folder."""

from __future__ import annotations

from typing import Annotated

import typer

from florence2.cli.options import model_names
from florence2.console import print_path


def pull(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="An alias, alias@revision or hub id.", autocompletion=model_names)],
) -> None:
    """Download a checkpoint, to have it when it is needed."""
    from florence2.weights import resolve

    print_path(resolve(name))
