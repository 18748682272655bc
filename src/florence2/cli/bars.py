"""How far something long has come, for people at a terminal and for logs.

In: a count, now and then. Out: lines on standard error. Knows nothing of what is counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from florence2.console import is_interactive, manner, notify


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int | None, str], None]]:
    """A progress bar on standard error; where that is no terminal, a line every ten seconds; nothing where quiet was asked for.

    Args:
        what: what is counted.

    Yields:
        What is to be called with how many there were so far, how many there will be (None where that is not known), and a note.
    """
    if manner.is_quiet or not is_interactive(sys.stderr):
        yield _every_ten_seconds(what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None, note="")
        yield lambda number, total, note: progress.update(task, completed=number, total=total, note=note)


def _every_ten_seconds(what: str) -> Callable[[int, int | None, str], None]:
    last = time.monotonic()

    def move(number: int, total: int | None, note: str) -> None:
        nonlocal last
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            notify(f"{what} {number}{'' if total is None else f'/{total}'}  {note}".rstrip())

    return move
