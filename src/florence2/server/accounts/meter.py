"""What each key uses: noted as requests end, moved into the database by a thread, and held against monthly quotas.

A finished request is a line in the journal before its answer is sent; the thread adds what was written to the sums of the database, each
part of the journal exactly once, and takes up what processes that were killed have left. In: finished requests. Out: sums.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from florence2.server.accounts.database import Database
from florence2.server.accounts.journal import Journal
from florence2.server.accounts.key_info import SELF_CHECK, KeyInfo
from florence2.server.accounts.totals import Record, Totals, read_line
from florence2.server.accounts.usage import add_batch, images_this_month
from florence2.server.errors import KeysUnavailable, QuotaExceeded

logger = logging.getLogger(__name__)

FLUSH_S = 1.0
ABANDONED_EVERY_S = 60.0
LOG_EVERY_S = 60.0
CLOSE_S = 5.0
DAY_S = 86400


class Meter:
    """Counts what keys use.

    Args:
        database: where the sums are.
        folder: where the journals of all processes on this machine are that write to it.
        limited: the names of the keys that have a quota.

    Attributes:
        num_unwritten: records that could not be written to the journal, and are kept in memory alone.
    """

    def __init__(self, database: Database, folder: Path, limited: Callable[[], Sequence[str]] = lambda: ()) -> None:
        self._database = database
        self._limited = limited
        self._used = images_this_month(database, limited())
        self._journal = Journal(folder)
        self.num_unwritten = 0
        self._lock = threading.Lock()  # of the numbers below
        self._open: Counter[str] = Counter()  # images that are noted, and not in ``_used``
        self._reserved: Counter[str] = Counter()
        self._unwritten = Totals()
        self._flushing = threading.Lock()
        self._in_memory: dict[str, Totals] = {}
        self._gone: list[str] = []
        self._num_batches = 0
        self._abandoned_at = self._logged_at = -LOG_EVERY_S
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="florence2-usage", daemon=True)

    def start(self) -> None:
        """Begin to move what is noted into the database."""
        self._thread.start()

    def close(self) -> None:
        """Move what is noted; what the database does not take in time stays in the journal for the next start."""
        if self._end.is_set():
            return
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        else:
            self.flush()
        if self._flushing.acquire(timeout=0.1):
            self._journal.close()
            self._flushing.release()

    def note(self, record: Record) -> None:
        """Note what a request used."""
        if record.key_name == SELF_CHECK:
            return
        with self._lock:
            self._open[record.key_name] += record.images
        if not self._journal.append(record.to_line()):
            with self._lock:
                self._unwritten.add(record)
                self.num_unwritten += 1

    @contextmanager
    def reserve(self, key: KeyInfo, num_images: int) -> Iterator[Callable[[Record], None]]:
        """Hold so many images against a key's quota, until what it used is noted or the block ends.

        Yields:
            What notes it.

        Raises:
            QuotaExceeded: there are not so many left in this month.
        """
        with self._lock:
            taken = self._used.get(key.name, 0) + self._open[key.name] + self._reserved[key.name]
            if key.monthly_quota is not None and taken + num_images > key.monthly_quota:
                raise _exceeded(key.monthly_quota, taken, num_images)
            self._reserved[key.name] += num_images
        is_held = True

        def release() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                with self._lock:
                    self._reserved[key.name] -= num_images

        def note(record: Record) -> None:
            release()
            self.note(record)

        try:
            yield note
        finally:
            release()

    def flush(self) -> bool:
        """Move all that is noted into the database; False: it does not answer. Blocks."""
        with self._flushing:
            moved: Counter[str] = Counter()
            try:
                self._move(moved)
                if time.monotonic() - self._abandoned_at >= ABANDONED_EVERY_S:
                    self._take_up_abandoned()
                    self._abandoned_at = time.monotonic()
                self._settle(moved, images_this_month(self._database, self._limited()))
                self._logged_at = -LOG_EVERY_S
                return True
            except KeysUnavailable as error:
                self._settle(moved, None)
                self._log(error.message)
                return False

    def _run(self) -> None:
        while not self._end.is_set():
            self._flush_safely()
            self._end.wait(FLUSH_S)
        self._flush_safely()

    def _flush_safely(self) -> None:
        try:
            self.flush()
        except Exception as error:  # such as a disk that is full: the thread goes on, and what is noted stays in the journal
            self._log(f"{type(error).__name__}: {error}")

    def _move(self, moved: Counter[str]) -> None:
        """Add the parts of the journal to the sums, and what is in memory alone."""
        if not self._journal.parts():  # while the database does not answer, one part grows
            self._journal.cut()
        for path in self._journal.parts():
            moved += self._add_part(path)
        with self._lock:
            unwritten, self._unwritten = self._unwritten, Totals()
        if unwritten.last_used:
            self._num_batches += 1
            self._in_memory[f"{self._journal.name}-memory-{self._num_batches}"] = unwritten
        for batch_id, totals in list(self._in_memory.items()):
            if add_batch(self._database, batch_id, totals, self._gone):
                self._gone = []
            del self._in_memory[batch_id]
            self._gone.append(batch_id)
            moved += totals.images

    def _take_up_abandoned(self) -> None:
        for parts in self._journal.abandoned():
            for path in parts:
                self._add_part(path)
            if parts:
                logger.warning("usage was taken up that a server had noted which did not end in order: %d files", len(parts))

    def _add_part(self, path: Path) -> Counter[str]:
        """Add a part to the sums, and remove it; its images by key."""
        totals = _read(path)
        if totals.last_used and add_batch(self._database, path.stem, totals, self._gone):
            self._gone = []
        path.unlink(missing_ok=True)
        self._gone.append(path.stem)  # only now can nobody come with this part again: its id is forgotten with the next batch
        return totals.images

    def _settle(self, moved: Counter[str], used: dict[str, int] | None) -> None:
        """What is in the sums now is no longer open."""
        with self._lock:
            if used is None:
                used = {name: self._used.get(name, 0) + moved[name] for name in {*self._used, *moved}}
            self._used = used
            self._open -= moved

    def _log(self, reason: str) -> None:
        if time.monotonic() - self._logged_at >= LOG_EVERY_S:
            self._logged_at = time.monotonic()
            logger.error("usage stays in the journal: %s", reason)


def _read(path: Path) -> Totals:
    """The sums of a part of a journal."""
    totals, num_broken = Totals(), 0
    with path.open("rb") as lines:
        for line in lines:
            if line != b"\n" and (record := read_line(line)) is not None:
                totals.add(record)
            else:
                num_broken += line != b"\n"
    if num_broken:
        logger.warning("%d lines of the journal %s are not whole, as where a disk was full", num_broken, path.name)
    return totals


def _exceeded(quota: int, taken: int, wanted: int) -> QuotaExceeded:
    now = datetime.datetime.now(datetime.UTC)
    next_month = (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + datetime.timedelta(days=32)).replace(day=1)
    left = max(0, quota - taken)
    return QuotaExceeded(
        f"this key may ask about {quota} images a month, {left} are left, and this request has {wanted}; the next month begins at "
        f"{next_month:%Y-%m-%d} 00:00 UTC",
        min(DAY_S, int((next_month - now).total_seconds()) + 1),
    )
