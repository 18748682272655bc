"""The run that a page shows: read once, and again when it has grown and a reader asks for what is new.

In: a way to read a run and to see whether it has changed. Out: the index of now, and pages of a selection. Knows no files and no HTTP.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from florence2.datasets.labelled import LabelledSet
from florence2.server.label_viewer.index import Index, Problem
from florence2.server.label_viewer.selection import Filters, Indices, select

MAX_SELECTIONS = 16


class Outdated(Exception):
    """A page asked about the run as it was before it was read again."""


@dataclass(frozen=True)
class Source:
    """Where the pictures of a run come from.

    Attributes:
        title: what the page calls the run.
        read: gives the labelled pictures and those with problems, as they are now.
        stamp: a value that changes whenever ``read`` would give something else.
    """

    title: str
    read: Callable[[], tuple[LabelledSet, Iterable[Problem]]]
    stamp: Callable[[], Hashable]


class Run:
    """A run as it was read last.

    Args:
        source: where it comes from.

    Raises:
        Florence2Error: it can't be read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._reading = threading.Lock()
        self._selections: OrderedDict[Filters, Indices] = OrderedDict()
        self._read()

    @property
    def has_changed(self) -> bool:
        """Whether the run has grown or changed since it was read."""
        return self._source.stamp() != self._stamp

    def summary(self) -> dict[str, Any]:
        """What a page shows of the whole run, read anew if it has changed."""
        with self._reading:
            if self.has_changed:
                self._read()
            index = self._index
        num_val = int(index.is_val.sum())
        return {
            "version": index.version,
            "title": self._source.title,
            "num_labelled": index.num_labelled,
            "num_problems": len(index) - index.num_labelled,
            "splits": {"train": index.num_labelled - num_val, "val": num_val},
            "has_scores": bool((index.object_score >= 0).any()),
            "classes": index.counts,
        }

    def index(self, version: str) -> Index:
        """The index, if it is the one that a page knows.

        Raises:
            Outdated: it is a later one.
        """
        index = self._index
        if version != index.version:
            raise Outdated
        return index

    def select(self, index: Index, filters: Filters) -> Indices:
        """The pictures that filters leave, in order; the last selections are remembered."""
        with self._reading:
            found = self._selections.get(filters) if index is self._index else None
        if found is None:
            found = select(index, filters)
        with self._reading:
            if index is self._index:
                self._selections[filters] = found
                self._selections.move_to_end(filters)
                if len(self._selections) > MAX_SELECTIONS:
                    self._selections.popitem(last=False)
        return found

    def _read(self) -> None:
        """Read the run; the stamp is from before, so that what is written meanwhile counts as a change."""
        stamp = self._source.stamp()
        self._index = Index(*self._source.read())
        self._stamp = stamp
        self._selections.clear()
