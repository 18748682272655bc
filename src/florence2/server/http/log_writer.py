"""Writing of log lines to standard error through a bounded queue and a thread: a log that is not read blocks no request.

Lines for which the queue has no room are dropped and counted; the count is logged as soon as there is room again. Knows nothing of what the
lines hold.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import sys
import threading
import time
from contextlib import suppress
from typing import TextIO

MAX_LINES = 10_000
MAX_LINE_BYTES = 64 * 2**10  # a traceback has less
FLUSH_S = 1.0


class QueuedHandler(logging.Handler):
    """Writes records to a stream without ever waiting for it.

    Attributes:
        num_dropped: lines lost since the last one that was written.
        num_lost: lines lost since the start.
    """

    def __init__(self, stream: TextIO, max_lines: int = MAX_LINES) -> None:
        super().__init__()
        self.num_dropped = self.num_lost = 0
        self._counting = threading.Lock()
        self._stream = stream
        self._descriptor = _descriptor_of(stream)
        self._lines: queue.Queue[bytes] = queue.Queue(max_lines)
        self._thread = threading.Thread(target=self._work, name="florence2-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line, or count it as lost."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace")
        except Exception:  # a record that can't be formatted must not fail the code that logs it
            line = f"a line of the log could not be written: {record.msg!r}".encode("utf-8", "backslashreplace")
        try:
            self._lines.put_nowait(line[:MAX_LINE_BYTES] + b"\n")
        except queue.Full:
            self._count(1)

    def flush(self) -> None:
        """Wait until all lines are written, at most ``FLUSH_S``."""
        deadline = time.monotonic() + FLUSH_S
        while self._lines.unfinished_tasks and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)

    def _work(self) -> None:
        while True:
            self._write_or_count(self._lines.get())
            self._lines.task_done()

    def _write_or_count(self, line: bytes) -> None:
        try:
            self._write(line)
            if lost := self.num_dropped:
                self._write(self._dropped_line(lost))
                self._count(-lost)
        except (OSError, ValueError):  # the reader is gone, or the stream is closed
            self._count(1)

    def _count(self, lines: int) -> None:
        with self._counting:
            self.num_dropped += lines
            self.num_lost += max(lines, 0)

    def _dropped_line(self, lost: int) -> bytes:
        message = f"{lost} lines of the log were dropped, because nobody read them"
        return self.format(logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, None, None)).encode() + b"\n"

    def _write(self, line: bytes) -> None:
        """Write past the stream's own lock: a thread that hangs in it would abort the interpreter's end."""
        if self._descriptor is None:
            self._stream.write(line.decode("utf-8"))
            self._stream.flush()
            return
        while line:
            select.select([], [self._descriptor], [])  # it may be one that does not block
            with suppress(BlockingIOError):
                line = line[os.write(self._descriptor, line) :]


def _descriptor_of(stream: TextIO) -> int | None:
    if sys.platform == "win32":  # where only sockets can be waited for
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
