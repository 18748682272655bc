"""What a labelling run on a cluster has given out and got back: one actor, which the workers of all nodes ask.

In: what is to be listed, and the answers that the run's folder holds already; from workers, what has become of each chunk of pictures.
Out: chunks of inputs that are to be read; how often a chunk or picture was begun, by which one that ends its process is found; counts; and
whether to stop. It runs on the node of the command, where lists and relative names are. Knows nothing of models.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from florence2.cluster.listing import Listed, Named, listed
from florence2.errors import Florence2Error
from florence2.labelling.answered import Answered
from florence2.labelling.asking import Record
from florence2.labelling.parts import parts_in
from florence2.labelling.records import answered_in

CHUNK = 16
"""Inputs that are read together, and pictures that travel together: some megabytes at the model's size."""
WAIT = b"wait"
PICTURE = "picture "
"""How keys begin that stand for a picture, and not for a chunk."""
_MOST_REMEMBERED = 100_000


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        num_new: pictures that were labelled and written.
        num_failed: pictures that could not be labelled, and are written.
        num_answered: pictures that are answered, or have failed, and are to be written.
        total: pictures of the run, as far as is known; None where it is not.
        num_listed: inputs that were listed, also those that were labelled before.
        num_left_out: files of folders that are no pictures, by what they are.
        num_open: chunks that were begun and are not written.
        notices: lines for the user, since the last time.
        error: what ends the run.
        broken: the first picture that could not be labelled.
        num_changed: pictures whose files have changed since they were labelled.
        has_engine: an engine has begun to answer.
    """

    num_new: int
    num_failed: int
    num_answered: int
    total: int | None
    num_listed: int
    num_left_out: Counter[str]
    num_open: int
    notices: list[str] = field(default_factory=list)
    error: BaseException | None = None
    broken: Record | None = None
    num_changed: int = 0
    has_engine: bool = False


class Ledger:
    """The ledger of one run.

    Args:
        named: what the user names.
        folder: the run's: a path or URL.
        current_folder: where relative names begin; None where they begin here.
        max_open: how many chunks of inputs are out at once.
        is_strict: a picture that can't be labelled ends the run.
    """

    def __init__(self, named: Named, folder: str, current_folder: str | None, max_open: int, is_strict: bool) -> None:
        self._named, self._folder, self._max_open, self._is_strict = named, folder, max_open, is_strict
        self._lock, self._listing_lock = threading.Lock(), threading.Lock()
        self._notices: list[str] = []
        self._error: BaseException | None = None
        self._broken: Record | None = None
        self._begun: Counter[str] = Counter()
        self._num_new = self._num_failed = self._num_read = 0
        self._num_left_out: Counter[str] = Counter()
        self._changed: set[str] = set()
        self._num_to_come: int | None = None
        self._is_stopped = self._has_engine = False
        if current_folder is not None:
            os.chdir(current_folder)
        self._parts = parts_in(folder)
        self._begin()
        self._notices += self._parts.notices

    def _begin(self) -> None:
        """Begin to list, without what is answered by now."""
        self._done: Answered = answered_in(self._folder, self._parts)
        self._given: dict[int, bytes] = {}
        self._unwritten: dict[str, int] = {}
        self._written: dict[str, None] = {}
        self._received: dict[str, int] = {}
        self._answered: dict[str, int] = {}
        self._begun = Counter({key: count for key, count in self._begun.items() if key.startswith(PICTURE)})
        self._num_before = self._num_pictures = self._num_new + self._num_failed
        self._num_given = self._num_listed = 0
        self._is_listed = False
        self._chunks = self._chunked(self._wanted(listed(self._named, self._notice)))

    def again(self) -> bool:
        """Begin to list anew where chunks were lost, and say whether that is so."""
        with self._listing_lock, self._lock:
            if self._is_stopped or not (self._given or self._unwritten):
                return False
            self._begin()
            return True

    def chunk(self, index: int) -> bytes | None:
        """Some inputs that are to be read, pickled; ``WAIT`` while enough are out, None at the end.

        Args:
            index: which chunk, from 0; one that was given before is given again, until its pictures were read.
        """
        with self._lock:
            if index < self._num_given:
                return self._given.get(index, pickle.dumps([]))
            if self._is_stopped:
                return None
            if len(self._given) + len(self._unwritten) >= self._max_open:
                return WAIT
        with self._listing_lock:
            try:
                some = next(self._chunks, None)
            except BaseException as error:
                self.fail(error)
                return None
        with self._lock:
            if some is None:
                self._is_listed = True
                return None
            self._given[index] = pickle.dumps(some)
            self._num_given = index + 1
            return self._given[index]

    def begin(self, key: str, *, is_engine: bool = False) -> tuple[int, bool]:
        """How often the work on a chunk or picture was begun, this time included; and whether the run is to stop.

        Args:
            key: of the chunk or picture.
            is_engine: an engine asks, which does nothing where the run is to stop.
        """
        with self._lock:
            self._begun[key] += 1
            self._has_engine |= is_engine and not self._is_stopped
            return self._begun[key], self._is_stopped

    def end(self, key: str) -> None:
        """Note that a process has survived the work on a picture."""
        with self._lock:
            self._begun.pop(key, None)

    def is_done(self, picture_id: str, path: str | None) -> bool:
        """Whether a page or frame was labelled before."""
        return self._done.holds(picture_id, path)

    def read(self, key: str, num_pictures: int) -> None:
        """Note that a chunk of pictures was read and is on its way to an engine."""
        with self._lock:
            if key not in self._unwritten and key not in self._written:
                self._unwritten[key] = num_pictures
                self._num_pictures += num_pictures

    def read_all(self, index: int, num_inputs: int, left_out: Counter[str]) -> None:
        """Note that all pictures of a chunk of inputs were read."""
        with self._lock:
            self._begun.pop(f"read-{index}", None)
            if self._given.pop(index, None) is not None:
                self._num_read += num_inputs
                self._num_left_out += left_out

    def answer(self, key: str, num_pictures: int) -> None:
        """Note that a chunk of pictures has come out of its engine."""
        with self._lock:
            if key in self._unwritten:
                self._answered[key] = num_pictures

    def write(self, outcomes: Sequence[tuple[str, Sequence[Record]]]) -> None:
        """Note that the records of chunks of pictures are written."""
        with self._lock:
            for key, records in outcomes:
                self._begun.pop(key, None)
                self._unwritten.pop(key, None)
                self._answered.pop(key, None)
                if key in self._written:  # done twice, as a process was lost in between; readers count it once
                    continue
                self._written[key] = None
                if len(self._written) > _MOST_REMEMBERED:
                    self._written.pop(next(iter(self._written)))
                for record in records:
                    self._count(record)

    def _count(self, record: Record) -> None:
        if "error" not in record:
            self._num_new += 1
            return
        self._num_failed += 1
        if self._is_strict and self._broken is None:
            self._broken, self._is_stopped = record, True

    def is_ending(self, writer: str, num_received: int) -> bool:
        """Whether no more records come to any writer than those that have come.

        Args:
            writer: the one that asks.
            num_received: pictures that have come to it so far.
        """
        with self._lock:
            self._received[writer] = num_received
            is_all_read = self._is_listed and not self._given
            return self._is_stopped or (is_all_read and sum(self._received.values()) >= self._num_pictures - self._num_before)

    def fail(self, error: BaseException) -> None:
        """End the run, as it can't go on."""
        with self._lock:
            self._error = self._error or (error if isinstance(error, (Florence2Error, OSError)) else RuntimeError(repr(error)))
            self._is_stopped = True

    def stop(self) -> None:
        """Give nothing out any more."""
        with self._lock:
            self._is_stopped = True

    def count(self) -> None:
        """Count the inputs that are to come, ahead of the run."""
        with suppress(Florence2Error, OSError):  # the listing itself says so
            self._num_to_come = sum(1 for _ in self._wanted(listed(self._named, lambda line: None), is_count=True))

    def state(self) -> State:
        """How far the run is."""
        with self._lock:
            notices, self._notices = self._notices, []
            to_come = self._num_to_come
            rest = None if to_come is None else max(0, to_come - self._num_read - self._num_left_out.total())
            return State(
                num_new=self._num_new,
                num_failed=self._num_failed,
                num_answered=sum(self._answered.values()),
                total=None if rest is None else self._num_pictures + rest,
                num_listed=self._num_listed,
                num_left_out=Counter(self._num_left_out),
                num_open=len(self._given) + len(self._unwritten),
                notices=notices,
                error=self._error,
                broken=self._broken,
                num_changed=len(self._changed),
                has_engine=self._has_engine,
            )

    def _notice(self, line: str) -> None:
        with self._lock:
            self._notices.append(line)

    def _wanted(self, groups: Iterator[list[Listed]], *, is_count: bool = False) -> Iterator[Listed]:
        """The inputs that were not labelled before; of those that hold several pictures all."""
        for group in groups:
            if not is_count:
                self._num_listed += len(group)
            files = [str(one.given.path) if one.given.kind == "file" else None for one in group]
            ids = [one.given.id for one in group]
            known = self._done.are_known(ids, files) if len(self._done) else [False] * len(group)
            for one, path, is_known in zip(group, files, known, strict=True):
                if not is_known:
                    yield one
                elif not self._done.holds(one.given.id, path):
                    self._changed.add(one.given.id)
                    yield one

    @staticmethod
    def _chunked(each: Iterator[Listed]) -> Iterator[list[Listed]]:
        while some := list(islice(each, CHUNK)):
            yield some


def chunks_of(pictures: Iterator[Any], size: int = CHUNK) -> Iterator[list[Any]]:
    """Pictures in groups, each as soon as it is whole."""
    group: deque[Any] = deque()
    for picture in pictures:
        group.append(picture)
        if len(group) == size:
            yield list(group)
            group.clear()
    if group:
        yield list(group)
