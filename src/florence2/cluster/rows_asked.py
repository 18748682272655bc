"""The rows that the requests of a replica ask for, from their arrival to their end.

A row is what one beam of one prompt about one picture takes of an engine; each tile of a picture is one more. Those that are still being
decoded, or wait for their model, count as well. Knows nothing of engines and of scaling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class RowsAsked:
    """A count of rows and of requests, of one event loop.

    Attributes:
        num_rows: the rows of all requests that are here.
        num_requests: how many those are.
    """

    def __init__(self) -> None:
        self.num_rows = self.num_requests = 0

    @contextmanager
    def of(self, num_rows: int) -> Iterator[Callable[[int], None]]:
        """Count a request while the block lasts.

        Args:
            num_rows: the rows of its picture as a whole.

        Yields:
            What takes how many pictures more it has, once that is known.
        """
        counted = num_rows

        def add(num_pictures: int) -> None:
            nonlocal counted
            counted += num_rows * num_pictures
            self.num_rows += num_rows * num_pictures

        self.num_rows += num_rows
        self.num_requests += 1
        try:
            yield add
        finally:
            self.num_rows -= counted
            self.num_requests -= 1
