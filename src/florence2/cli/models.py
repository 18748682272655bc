"""``florence2 models`` and ``florence2 pull``: which checkpoints there are, and one of them onto this machine.

In: a name. Out: lines for people, or the folder of what was fetched. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from florence2.console import print_path
from florence2.errors import ModelNotFound


def models() -> None:
    """List the known checkpoints, and which of them are here."""
    from florence2.weights import ALIASES

    rows = [("ALIAS", "PARAMETERS", "FROM", "HERE", "")]
    for alias in ALIASES.values():
        source, is_here = alias.repository or "this package", "yes" if _is_here(alias.name, alias.repository) else "no"
        rows.append((alias.name, alias.num_parameters, source, is_here, alias.description))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("\nAny hub id (owner/name), alias@revision or folder does as well.")


def pull(
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="An alias, alias@revision or hub id.")],
) -> None:
    """Download a checkpoint, to have it when it is needed."""
    from florence2.weights import resolve

    print_path(resolve(name))


def _is_here(name: str, repository: str | None) -> bool:
    """Whether a checkpoint needs no download."""
    from florence2.weights import resolve

    if repository is None:
        try:
            return bool(resolve(name))
        except ModelNotFound:
            return False
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:  # without the engine nothing has been downloaded for it
        return False
    from florence2.weights.hub import is_complete

    config = try_to_load_from_cache(repository, "config.json")
    return isinstance(config, str) and is_complete(Path(config).parent)
