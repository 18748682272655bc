"""Tables on standard output: aligned columns as plain text, and with colours where a terminal shows them.

In: rows of cells. Out: lines. Knows nothing of what the cells say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A line for each row, its cells as wide as the widest of their column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def print_coloured(header: Sequence[str], rows: Sequence[Sequence[str]], *, bold: Collection[int], unbroken: Collection[str]) -> None:
    """A table for a terminal, its lines broken where it is narrow.

    Args:
        header: the columns' names.
        rows: a cell for each column.
        bold: the rows, by index, that are emphasized; the others are dimmed.
        unbroken: the columns whose cells stay on one line.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold", no_wrap=name in unbroken, justify="right" if name == "SIZE" else "left")
    for index, (first, *cells) in enumerate(rows):
        is_bold = index in bold
        table.add_row(Text(first, style="bold" if is_bold else ""), *(Text(cell, style="" if is_bold else "dim") for cell in cells))
    Console().print(table)
