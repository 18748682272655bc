"""How far a command is: a bar with rate and time left on a terminal, a line now and then elsewhere, nothing for a few steps.

In: how many steps there are, and that one more is done. Out: text on standard error alone, out of the way of what the command prints.
Knows nothing of what is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

from florence2.console import is_interactive, manner, notify

if TYPE_CHECKING:
    from rich.progress import Progress

A_FEW = 5
LINE_EVERY_S = 30.0


class Steps(Protocol):
    """Who is told of each step."""

    def advance(self) -> None:
        """One more is done."""

    def printing(self) -> AbstractContextManager[None]:
        """While something else is printed, to the same terminal perhaps."""
        ...


class Silent:
    """Steps that nobody wants to see."""

    def advance(self) -> None:
        """One more is done."""

    def printing(self) -> AbstractContextManager[None]:
        """While something else is printed."""
        return nullcontext()


class Lines(Silent):
    """A line every half a minute.

    Args:
        what: what is counted, in the plural.
        total: how many there are.
        clock: seconds, from any beginning.
    """

    def __init__(self, what: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._total, self._clock, self._done = what, total, clock, 0
        self._begun = self._told = clock()

    def advance(self) -> None:
        """One more is done."""
        self._done += 1
        now = self._clock()
        if now - self._told < LINE_EVERY_S or self._done >= self._total:
            return
        self._told = now
        rate = self._done / (now - self._begun)
        left = duration((self._total - self._done) / rate)
        notify(f"florence2: {self._done} of {self._total} {self._what}, {rate:.2g}/s, {left} left")


class Bar:
    """A bar on a terminal, below what is printed there."""

    def __init__(self, what: str, total: int, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task(what, total=total)

    def advance(self) -> None:
        """One more is done."""
        self._bar.advance(self._task)

    @contextmanager
    def printing(self) -> Iterator[None]:
        """Take the bar away while something else is printed."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()


@contextmanager
def steps(what: str, total: int) -> Iterator[Steps]:
    """The steps of a command.

    Args:
        what: what is counted, in the plural.
        total: how many there are.
    """
    if total <= A_FEW or manner.is_quiet:
        yield Silent()
    elif not is_interactive(sys.stderr):
        yield Lines(what, total)
    else:
        with _bar() as bar:
            yield Bar(what, total, bar)


def duration(seconds: float) -> str:
    """A time for people: seconds below two minutes, minutes below two hours, hours beyond."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _bar() -> Progress:
    """A bar on standard error that leaves nothing behind."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if not task.speed else f"{task.speed:.2g}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False)
