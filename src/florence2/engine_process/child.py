"""The engine's process: ``python -m florence2.engine_process.child PARENT HEARTBEAT LOG_LEVEL SOCKET LANE…``, started by the server alone.

It reads calls from a socket and answers them until the socket is closed, then it ends at once. What comes up in the engines' threads is
sent by a thread of its own, everything since its last turn in one message. Imports torch by way of ``worker``, last.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from florence2.engine_process.lanes import LaneReader
from florence2.engine_process.messages import Beat, Logged, Ready

BEAT_S = 0.5
PR_SET_PDEATHSIG = 1


class Outbox:
    """What is to be sent: everything that is there goes in one message.

    Args:
        connection: the child's end.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._messages: list[Any] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._send, name="florence2-outbox", daemon=True).start()

    def put(self, *messages: Any) -> None:
        """Send messages in their order; from any thread, and without waiting."""
        with self._changed:
            self._messages += messages
            self._changed.notify()

    def _send(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._messages)
                messages, self._messages = self._messages, []
            try:
                self._connection.send(messages)
            except OSError:  # the server is gone
                os._exit(0)
            except BaseException:  # who waits for what can't be sent would wait for ever
                traceback.print_exc()
                os._exit(1)


class LogSender(logging.Handler):
    """Sends what is logged to the server, whose log it belongs to."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line, and its traceback behind it."""
        self._outbox.put(Logged(record.name, record.levelno, self.format(record)))


def main(words: Sequence[str]) -> None:
    """Answer calls until the server closes the connection."""
    parent, heartbeat_s, level, end, *lanes = words
    _die_with(int(parent))
    for descriptor in (int(end), *map(int, lanes)):
        os.set_inheritable(descriptor, False)
    connection = Connection(int(end))
    outbox = Outbox(connection)
    _send_log(outbox, int(level))
    from florence2.engine_process.worker import Worker

    worker = Worker(outbox.put, LaneReader([int(lane) for lane in lanes]))
    outbox.put(Ready())
    threading.Thread(target=_beat, args=(outbox, worker, min(BEAT_S, float(heartbeat_s) / 4)), name="florence2-heart", daemon=True).start()
    try:
        while True:
            worker.take(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def _beat(outbox: Outbox, worker: Any, every_s: float) -> None:
    """The thread that says that the process is alive."""
    while True:
        outbox.put(Beat(worker.stats()))
        time.sleep(every_s)


def _send_log(outbox: Outbox, level: int) -> None:
    root = logging.getLogger()
    root.handlers = [LogSender(outbox)]
    logging.getLogger("florence2").setLevel(level)
    logging.captureWarnings(True)


def _die_with(parent: int) -> None:
    """End with the server, however it ends, and by no signal that is meant for it; a crash writes where it was."""
    faulthandler.enable()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
