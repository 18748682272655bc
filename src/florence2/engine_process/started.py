"""One started child: its command, its environment, its log and its end.

What it writes to standard error, the last words of a crash among it, goes into the server's log. It has a session of its own, so that
Ctrl-C reaches the server alone. Knows nothing of models and messages.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from florence2.engine_process.link import Link

logger = logging.getLogger(__name__)

LONGEST_LINE = 2000
EXIT_S = 5.0
NATIVE_SWITCH = "FLORENCE2_NATIVE"  # whether compiled routines are used; no setting of the server, and read where they are loaded


class StartedProcess:
    """A child and the connection with it.

    Args:
        lanes: the files of shared memory.
        heartbeat_s: how long it may say nothing.
        on_ready: called when it takes calls.

    Attributes:
        pid: its number.
        link: the connection.

    Raises:
        OSError: the system can't start it.
    """

    def __init__(self, lanes: Sequence[int], heartbeat_s: float, on_ready: Callable[[], None]) -> None:
        ours, its = socket.socketpair()
        level = logging.getLogger("florence2").getEffectiveLevel()
        words = [str(number) for number in (os.getpid(), heartbeat_s, level, its.fileno(), *lanes)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "florence2.engine_process.child", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(its.fileno(), *lanes),
                env=_environment(),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        self.pid = self._process.pid
        threading.Thread(target=self._read_log, name="florence2-engine-log", daemon=True).start()
        self.link = Link(ours, on_ready)

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self.link.close()

    def end(self, patience_s: float) -> None:
        """Let it end by itself, and kill it if it does not."""
        self.link.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.cause_of_death()

    def cause_of_death(self) -> str:
        """How it has ended, in words."""
        try:
            code = self._process.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            return "it was killed and does not end"
        if code >= 0:
            return f"it exited with {code}"
        known = {number.value: number.name for number in signal.Signals}
        return f"it was ended by {known.get(-code, f'signal {-code}')}"

    def _read_log(self) -> None:
        """The thread that reads its standard error."""
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in iter(lambda: stream.readline(LONGEST_LINE), b""):
                logger.warning("%s", line.decode("utf-8", "replace").rstrip())


def _environment() -> dict[str, str]:
    """The child's variables: those of this process, without the server's settings, some of which are secret."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLORENCE2_") or name == NATIVE_SWITCH}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
