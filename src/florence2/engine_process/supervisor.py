"""The engine's process: started, watched, and started again when it ends or hangs.

One thread does all of that. A process that says nothing for too long, or whose engine is in one pass for too long, is killed. Between two
starts there is a pause that doubles each time, until a process has been well for a while. Knows nothing of which models are needed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal

from florence2.engine_process.lanes import Lanes
from florence2.engine_process.link import Link
from florence2.engine_process.messages import LoadOptions
from florence2.engine_process.remote_engine import RemoteEngine
from florence2.engine_process.started import StartedProcess
from florence2.errors import EngineClosed, EngineDied

logger = logging.getLogger(__name__)

State = Literal["starting", "running", "restarting", "stopped"]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0
WELL_S = 60.0  # a process that has lived for so long begins the pauses anew
START_S = 120.0  # importing torch from a cold disk
LOADING_S = 60.0  # what loads or prepares a device may hold the interpreter's lock for longer than the heartbeat allows
LONGEST_WAIT_S = 2.0  # callers wait for a restart that is nearer than this
TICK_S = 0.25
SLEPT_S = 2.0  # a tick that lasts so long says that this process was stopped itself, so that nothing was read
STOP_S = 1.0
SILENT_S = 3.0


class EngineProcess:
    """The process of all engines of one server.

    Args:
        num_lanes: how many pictures may be on their way to it at once.
        step_timeout_s: a pass of an engine that lasts longer is taken for one that hangs.
        heartbeat_s: a process that says nothing for so long is taken for one that hangs.

    Attributes:
        state: "starting" until it first takes calls, "running", "restarting", or "stopped" for good.
        num_restarts: how often it was started again.
        last_failure: why it ended last; "" as long as it has not.
        on_death: called in the supervising thread when it has ended by itself; everything that it had loaded is gone.
    """

    def __init__(self, *, num_lanes: int, step_timeout_s: float, heartbeat_s: float) -> None:
        self.state: State = "starting"
        self.num_restarts = 0
        self.last_failure = ""
        self.on_death: Callable[[], object] = lambda: None
        self._step_timeout_s = step_timeout_s
        self._heartbeat_s = heartbeat_s
        self._num_lanes = num_lanes
        self._lanes = Lanes(0)
        self._changed = threading.Condition()
        self._process: StartedProcess | None = None
        self._num_ended = 0
        self._starts_at = 0.0
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """The number of the process that runs now; None: there is none."""
        process = self._process
        return None if process is None else process.pid

    @property
    def is_running(self) -> bool:
        """Whether it takes calls at this moment."""
        process = self._process
        return self.state == "running" and process is not None and not process.link.has_ended.is_set()

    @property
    def does_answer(self) -> bool:
        """Whether the running process is heard of."""
        process = self._process
        if process is None or not process.link.is_ready or process.link.num_loading:
            return True
        return time.monotonic() - process.link.beat_at < min(SILENT_S, self._heartbeat_s)

    def start(self) -> None:
        """Start the process, in a thread of its own that ends only with ``stop``."""
        with self._changed:
            if self._thread is None and self.state != "stopped":
                self._lanes = Lanes(self._num_lanes)
                # The system ends a child with the thread that has started it, so that this thread stays.
                self._thread = threading.Thread(target=self._supervise, name="florence2-engine-process", daemon=True)
                self._thread.start()

    def load(self, options: LoadOptions) -> RemoteEngine:
        """A model, loaded there; waits for it.

        Raises:
            EngineDied: the process ends meanwhile, or has ended several times and is started again only later.
            EngineClosed: ``stop`` was called.
            Florence2Error: what loading raises.
        """
        self.start()
        link = self._running_link()
        try:
            facts, number = link.load(options)
        except EngineDied as error:
            error.has_ended_loading = True
            raise
        return RemoteEngine(link, self._lanes, number, facts)

    def stop(self) -> None:
        """End the process, at once if it hangs, and start no other."""
        with self._changed:
            self.state = "stopped"
            self._changed.notify_all()
            process = self._process
        if process is not None:
            process.end(STOP_S)
        if self._thread is not None:
            self._thread.join(STOP_S)
        self._lanes.close()

    def _running_link(self) -> Link:
        """The connection with the running process; waits for one that starts."""
        with self._changed:
            process = self._process
            is_ending = process is not None and process.link.has_ended.is_set()  # and the thread has not seen it yet
            num_ended = self._num_ended + is_ending
            if self.state != "stopped" and self._starts_at - time.monotonic() > LONGEST_WAIT_S:
                raise EngineDied(retry_after_s=max(1, round(self._starts_at - time.monotonic())))
            self._changed.wait_for(lambda: self.is_running or self.state == "stopped" or self._num_ended > num_ended)
            if self.state == "stopped":
                raise EngineClosed("the engine's process was stopped, because the program ends")
            process = self._process
            if process is None or not self.is_running:
                raise EngineDied()
            return process.link

    def _supervise(self) -> None:
        """The thread: one process after the other."""
        pause_s = FIRST_PAUSE_S
        while self.state != "stopped":
            began = time.monotonic()
            self.last_failure = self._live()
            if self.state == "stopped":
                return
            if time.monotonic() - began > WELL_S:
                pause_s = FIRST_PAUSE_S
            logger.error("the engine's process ended: %s; it is started again in %g s", self.last_failure, pause_s)
            with self._changed:
                self._process, self.state = None, "restarting"
                self._num_ended += 1
                self._starts_at = time.monotonic() + pause_s
                self._changed.notify_all()
            self.on_death()
            with self._changed:
                self._changed.wait_for(lambda: self.state == "stopped", pause_s)
            self.num_restarts += 1
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _live(self) -> str:
        """The life of one process: why it has ended."""
        try:
            process = StartedProcess(self._lanes.descriptors, self._heartbeat_s, self._note_ready)
        except OSError as error:
            return f"it can't be started: {error}"
        with self._changed:
            self._process = process
            if self.state == "stopped":
                process.kill()
        hung = self._watch(process)
        process.kill()
        cause = process.cause_of_death()
        return hung or cause

    def _note_ready(self) -> None:
        with self._changed:
            if self.state != "stopped":
                self.state = "running"
            self._changed.notify_all()

    def _watch(self, process: StartedProcess) -> str:
        """Wait until a process ends, or hangs; then what hangs, or ""."""
        link, looked_at = process.link, time.monotonic()
        while not link.has_ended.wait(TICK_S):
            now = time.monotonic()
            if now - looked_at > SLEPT_S:
                link.beat_at = now
            looked_at = now
            silent_s = now - link.beat_at
            longest_s = START_S if not link.is_ready else max(self._heartbeat_s, LOADING_S) if link.num_loading else self._heartbeat_s
            if silent_s > longest_s:
                return f"it has said nothing for {silent_s:.0f} s"
            if (age_s := self._pass_age_s(link)) > self._step_timeout_s:
                return f"one of its passes has lasted {age_s:.0f} s"
        return ""

    def _pass_age_s(self, link: Link) -> float:
        """How long the oldest pass under way has lasted."""
        return max((stats.pass_age_s for stats in link.stats.values()), default=0.0)
