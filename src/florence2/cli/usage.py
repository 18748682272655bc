"""``florence2 usage``: what keys have used, from the database of a server.

Out: a table for people, JSON lines or CSV for programs. Nothing of the server is imported before the command runs.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, cast

import typer

from florence2.cli.keys import DatabaseUrl, database_at
from florence2.cli.options import one_of
from florence2.cli.tables import aligned
from florence2.console import json_line, shown
from florence2.errors import InvalidOption
from florence2.extras import requires

if TYPE_CHECKING:
    from florence2.server.accounts.usage import By, UsageRow

GROUPINGS = ("day", "month", "model", "key")
_COLUMNS = ("key", "model", "time", "requests", "images", "prompt_tokens", "answer_tokens", "compute_s", "errors")


def usage(
    key: Annotated[str | None, typer.Option(metavar="NAME", help="One key. Default: all.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="From this day on (UTC): 2026-11-01. Default: this month's first.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="DATE", help="To this day, which counts.")] = None,
    by: Annotated[
        str, typer.Option(metavar="WHAT", help="A row for each day, month, model or key.", autocompletion=one_of(*GROUPINGS))
    ] = "day",
    database: DatabaseUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a row.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Show what keys have used: requests, images, tokens, errors."""
    if by not in GROUPINGS:
        raise InvalidOption(f"--by is one of {', '.join(GROUPINGS)}, got {by!r}", field="by")
    if as_json and as_csv:
        raise InvalidOption("--json and --csv are given; leave one of them out", field="as_csv")
    first = _day("since", since) or datetime.now(UTC).date().replace(day=1)
    with requires("keys", "florence2 usage"):
        from florence2.server.accounts.usage import read_usage
    last, rows = _day("until", until), []
    if (found := database_at(database)) is not None:
        with found as opened:
            rows = read_usage(opened, key=key, since=first, until=last, by=cast("By", by))
    if as_json:
        for row in rows:
            print(json_line(asdict(row)), flush=True)
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([_COLUMNS, *map(_cells, rows)])
    elif not rows:
        print(f"nothing was used{'' if key is None else f' by {key}'} since {first}", flush=True)
    else:
        _print_table(rows)


def _day(option: str, text: str | None) -> date | None:
    """A day as it is written."""
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise InvalidOption(f"--{option} is a day such as 2026-11-01, got {text!r}", field=option) from None


def _print_table(rows: Sequence[UsageRow]) -> None:
    """The rows, without columns that say nothing."""
    cells = [_COLUMNS, *map(_cells, rows)]
    columns = [column for column in zip(*cells, strict=True) if any(column[1:])]
    for line in aligned(list(zip(*columns, strict=True))):
        print(shown(line), flush=True)


def _cells(row: UsageRow) -> tuple[str, ...]:
    numbers = (row.requests, row.images, row.prompt_tokens, row.answer_tokens)
    errors = " ".join(f"{code}={count}" for code, count in sorted(row.errors.items()))
    return row.key, row.model or "", row.time or "", *map(str, numbers), f"{row.compute_s:.3f}", errors
