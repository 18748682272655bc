"""The progress of a list of images: a bar on standard error, calls of a function, or nothing.

In: how many images are done. Knows nothing of what is done with them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

Progress = bool | Callable[[int, int], None]
"""True for a bar on standard error, or a function of the images done and all images."""


class ProgressReport:
    """A list's progress: a bar, calls of a function, or nothing. May be added to from any thread."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._report = progress if callable(progress) else None
        self._has_bar = progress is True
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self._open = ExitStack()

    def __enter__(self) -> ProgressReport:
        if self._has_bar:
            self._report = self._open.enter_context(_bar())
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, num_images: int) -> None:
        """Report so many more images as done."""
        with self._lock:
            self._done += num_images
            if self._report and num_images:
                self._report(self._done, self._total)


def _bar() -> AbstractContextManager[Callable[[int, int], None]]:
    """A bar on standard error, as a function of done and total."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    class Shown(Bar):
        def __enter__(self) -> Any:
            super().__enter__()
            task = self.add_task("images", total=None)
            return lambda done, total: self.update(task, completed=done, total=total)

    return Shown(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True))
