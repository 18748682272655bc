"""A process that ends although something in it hangs: ``Deadline`` ends it at a time, whatever it is doing then."""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
import time

logger = logging.getLogger(__name__)

# A thread that holds the interpreter's lock lets no other thread end the process; this one needs no lock.
LOCKED_S = 1.0
FLUSH_S = 0.5


class Deadline:
    """Ends the process at the earliest of the times that it is given.

    Attributes:
        exit_code: what the process ends with then.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        self._at: float | None = None
        # Signal handlers call ``within``, and may interrupt any line; so there is no lock.
        self._devnull = open(os.devnull, "w")  # noqa: SIM115 - open as long as the process is

    def within(self, seconds: float) -> None:
        """End no later than so many seconds from now."""
        at = time.monotonic() + seconds
        if self._at is not None and self._at <= at:
            return
        is_first, self._at = self._at is None, at
        faulthandler.dump_traceback_later(seconds + LOCKED_S, exit=True, file=self._devnull)
        if is_first:
            threading.Thread(target=self._wait, name="florence2-deadline", daemon=True).start()

    def _wait(self) -> None:
        while self._at is not None and (left := self._at - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        # In a thread of its own: a log may hang as well.
        threading.Thread(target=_log_threads, daemon=True).start()
        time.sleep(FLUSH_S)
        os._exit(self.exit_code)


def _log_threads() -> None:
    threads = [thread.name for thread in threading.enumerate() if not thread.name.startswith("florence2-deadline")]
    logger.warning("ended without waiting for what hangs; threads left: %s", ", ".join(threads)[:300])
    for handler in logging.getLogger("florence2").handlers:
        handler.flush()
