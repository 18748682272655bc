"""Progress of a command: a bar with rate and time left on a terminal, a line now and then elsewhere, nothing for a few steps.

In: how many steps are done, of how many. Out: text on standard error alone, out of the way of what the command prints. Knows nothing of
the steps themselves.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from florence2.console import is_interactive, notify, reporting

if TYPE_CHECKING:
    import rich.progress

A_FEW = 5
LINE_EVERY_S = 30.0


class Progress:
    """How many steps are done; this one shows nothing.

    Attributes:
        num_done: the steps that are done.
        total: all steps; None where that is not known yet.
    """

    def __init__(self, total: int | None = None) -> None:
        self.num_done, self.total = 0, total

    def update(self, num_done: int, total: int | None = None, note: str = "") -> None:
        """Show that so many steps are done, and of how many where that has become known; the note stands beside it."""
        self.num_done, self.total = num_done, self.total if total is None else total
        self._show(note)

    def advance(self) -> None:
        """Show that one more step is done."""
        self.update(self.num_done + 1)

    def printing(self) -> AbstractContextManager[None]:
        """Surrounds the printing of something else, which may go to the same terminal."""
        return nullcontext()

    def _show(self, note: str) -> None:
        pass


class Lines(Progress):
    """A line every half a minute.

    Args:
        what: what is counted, in the plural.
        total: how many there are; None where that is not known yet.
        clock: seconds, from any beginning.
    """

    def __init__(self, what: str, total: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(total)
        self._what, self._clock = what, clock
        self._started = self._last_shown = clock()

    def _show(self, note: str) -> None:
        now = self._clock()
        if now - self._last_shown < LINE_EVERY_S or self.num_done == self.total:
            return
        self._last_shown = now
        rate = self.num_done / (now - self._started)
        line = f"florence2: {self.num_done} {self._what}, {rate:.2g}/s"
        if self.total is not None:
            left = duration((self.total - self.num_done) / rate) if rate else "an unknown time"
            line = f"florence2: {self.num_done} of {self.total} {self._what}, {rate:.2g}/s, {left} left"
        notify(f"{line}  {note}".rstrip())


class Bar(Progress):
    """A bar on a terminal, below what is printed there."""

    def __init__(self, what: str, total: int | None, bar: rich.progress.Progress) -> None:
        super().__init__(total)
        self._bar = bar
        self._task = bar.add_task(what, total=total, note="")

    def _show(self, note: str) -> None:
        self._bar.update(self._task, completed=self.num_done, total=self.total, note=note)

    @contextmanager
    def printing(self) -> Iterator[None]:
        """Take the bar away while something else is printed."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()


@contextmanager
def show_progress(what: str, total: int | None = None) -> Iterator[Progress]:
    """The progress of a command, shown as far as somebody wants to see it.

    Args:
        what: what is counted, in the plural.
        total: how many there are; None where that is not known yet.
    """
    if reporting.is_quiet or (total is not None and total <= A_FEW):
        yield Progress(total)
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


def _bar() -> rich.progress.Progress:
    """A bar on standard error that leaves nothing behind; what else is written there stands above it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if not task.speed else f"{task.speed:.2g}/s")

    note = TextColumn("{task.fields[note]}", markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(), note)
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
