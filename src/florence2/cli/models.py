"""``florence2 models``: the known checkpoints, and which of them are on this machine.

Out: a table for people, or JSON for programs. Nothing heavy is imported before the command runs.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from florence2.cli.tables import aligned, print_coloured
from florence2.console import is_interactive, json_line, name_of, reporting, shown
from florence2.errors import Florence2Error
from florence2.weights.aliases import ALIASES, Alias

_TABLE_COLUMNS = 80
_SHORT_COLUMNS = frozenset({"ALIAS", "PARAMETERS", "SIZE", "HERE"})
_MORE = "Any hub id (owner/name), alias@revision or folder does as well."


class Listed(NamedTuple):
    """One checkpoint, and where it is on this machine, if it is."""

    alias: Alias
    path: Path | None

    @property
    def size_mb(self) -> int:
        """Of its files here; of a download, about."""
        if self.path is None:
            return self.alias.download_mb
        return round(sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file()) / 1e6)


def models(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per checkpoint and line.")] = False) -> None:
    """List the known checkpoints, and which of them are here."""
    listed = [Listed(alias, _here(alias)) for alias in ALIASES.values()]
    if as_json:
        for one in listed:
            print(json_line(_as_json(one)), flush=True)
        return
    header = ("ALIAS", "PARAMETERS", "SIZE", "HERE", "", "FROM", *(("PATH",) if reporting.is_verbose else ()))
    rows = [_row(one)[: len(header)] for one in listed]
    is_wide = shutil.get_terminal_size().columns >= _TABLE_COLUMNS
    if is_interactive(sys.stdout) and not is_wide:
        _print_blocks(rows)
    elif is_wide and (is_interactive(sys.stdout) or os.environ.get("FORCE_COLOR")):
        shown_here = len(header) if reporting.is_verbose else header.index("FROM")
        here = [index for index, one in enumerate(listed) if one.path is not None]
        print_coloured(header[:shown_here], [row[:shown_here] for row in rows], bold=here, unbroken=_SHORT_COLUMNS)
    else:
        print("\n".join(aligned([header, *rows])))
    print(f"\n{_MORE}", flush=True)


def _row(one: Listed) -> tuple[str, ...]:
    alias, is_here = one.alias, one.path is not None
    size = f"{'' if is_here else '~'}{one.size_mb} MB"
    source = alias.repository or "this package"
    return alias.name, alias.num_parameters, size, "yes" if is_here else "no", alias.description, source, shown(one.path or "")


def _as_json(one: Listed) -> dict[str, object]:
    alias, path = one.alias, one.path
    return {
        "alias": alias.name,
        "repository": alias.repository,
        "parameters": alias.num_parameters,
        "description": alias.description,
        "here": path is not None,
        "size_mb": one.size_mb,
        "path": None if path is None else name_of(path),
    }


def _print_blocks(rows: Sequence[Sequence[str]]) -> None:
    """Some short lines for each checkpoint: a table has no room on a phone."""
    for alias, num_parameters, size, here, description, *where in rows:
        print(f"{alias} ({num_parameters}, {size}{', here' if here == 'yes' else ''})")
        for line in (description, *(where if reporting.is_verbose else ())):
            if line:
                print(f"  {line}")


def _here(alias: Alias) -> Path | None:
    """The folder of a checkpoint that needs no download."""
    from florence2.weights import resolve

    try:
        if alias.repository is None:
            return resolve(alias.name)
        from florence2.weights.hub import cached

        return cached(alias.repository)
    except Florence2Error:  # it is not part of this installation; without the engine nothing has been downloaded for it
        return None
