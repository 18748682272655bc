"""The end of a long command by a signal: what is under way is finished first, and a second signal ends the program at once.

In: what a first signal is answered with. Out: whether there was one. Knows nothing of the work.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from florence2.console import report

_SAME_SIGNAL_S = 1.0  # what comes sooner is the same one, passed on by a program around this one


class Stop:
    """Whether the end is wanted.

    Attributes:
        number: the signal that came first; None as long as there was none.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def is_wanted(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """What shells know a program by that such a signal has ended."""
        return 128 + (self.number or 0)


@contextmanager
def stopped_softly(notice: str) -> Iterator[Stop]:
    """Let Ctrl-C and SIGTERM wait for the end of what is under way; a second signal ends the program at once.

    Args:
        notice: the line that answers the first signal.
    """
    stop = Stop()
    wanted_at = 0.0

    def note(number: int, _: object) -> None:
        nonlocal wanted_at
        if stop.number is None:
            stop.number, wanted_at = number, time.monotonic()
            report(notice)
        elif time.monotonic() - wanted_at > _SAME_SIGNAL_S:
            restore()
            signal.raise_signal(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield stop
    finally:
        restore()
