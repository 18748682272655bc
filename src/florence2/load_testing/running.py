"""One run under one load: requests in an open loop, each at its time, or in a closed one, by clients that wait for their answers.

In: a sender, planned requests, a load. Out: a ``Run`` with a measurement for each request that was sent. In the open loop a request is sent
whether or not earlier ones are answered, and its latency begins when it was due. Knows nothing of HTTP and of figures.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from florence2.load_testing.lag import watched_lag
from florence2.load_testing.measurement import Measurement
from florence2.load_testing.options import Load
from florence2.load_testing.sending import Clock
from florence2.load_testing.workload import Planned, due_times

_MOST_IN_A_ROW = 16  # requests that are sent at once where all of them are due
_LOOK_S = 0.1  # how often the end is looked for
_END_GRACE_S = 1.0  # for requests in flight, when a user ends the run
_PAUSE_S = 0.1  # of a client whose request failed, or was refused without a time to wait


class SendsRequests(Protocol):
    """What ``Sender`` does."""

    async def send(self, planned: Planned, due_s: float, clock: Clock) -> Measurement:
        """Send one request, and say what became of it."""
        ...


@dataclass(frozen=True)
class Limits:
    """When a run ends: at the first of these.

    Attributes:
        duration_s: no request is due after it; None for no such limit.
        num_requests: most requests; None for no such limit.
    """

    duration_s: float | None = None
    num_requests: int | None = None


@dataclass
class Run:
    """What one run has measured.

    Attributes:
        load: how much was asked.
        measurements: of each request that was sent, in the order of their ends.
        num_sent: requests that were sent.
        sending_s: how long requests were sent.
        delays_s: of the generator's event loop.
        is_cut_short: whether a user ended it.
    """

    load: Load
    measurements: list[Measurement] = field(default_factory=list)
    num_sent: int = 0
    sending_s: float = 0.0
    delays_s: array[float] = field(default_factory=lambda: array("d"))
    is_cut_short: bool = False


@dataclass
class Runner:
    """Runs one load after the other.

    Attributes:
        sender: sends the requests.
        planned: what is sent; each run takes the next ones.
        limits: when a run ends.
        arrivals: of an open loop: ``poisson`` or ``constant``.
        seed: of the times of arrival.
        is_to_stop: whether a user wants the end.
        on_progress: called with the number of requests of the run that have ended.
    """

    sender: SendsRequests
    planned: Iterator[Planned]
    limits: Limits
    arrivals: str = "poisson"
    seed: int = 0
    is_to_stop: Callable[[], bool] = lambda: False
    on_progress: Callable[[int], None] = lambda _: None

    async def run(self, load: Load) -> Run:
        """Run under one load, to the end of its last request."""
        run, clock = Run(load), Clock()
        async with watched_lag() as run.delays_s:
            tasks = await (self._open(run, clock) if load.kind == "rate" else self._closed(run, clock))
            duration_s = self.limits.duration_s
            is_by_time = duration_s is not None and not self.is_to_stop() and run.num_sent != self.limits.num_requests
            run.sending_s = duration_s if is_by_time and duration_s is not None else clock()
            await self._finish(tasks)
        run.is_cut_short = self.is_to_stop()
        return run

    async def _open(self, run: Run, clock: Clock) -> set[asyncio.Task[Measurement]]:
        """Send each request when it is due; those in flight are returned."""
        tasks: set[asyncio.Task[Measurement]] = set()
        for due_s in due_times(run.load, self.arrivals, self.seed):
            if self._is_over(run, due_s):
                break
            if not run.num_sent % _MOST_IN_A_ROW:  # one that is late lets the others go on, too
                await asyncio.sleep(0)
            while (wait_s := due_s - clock()) > 0 and not self.is_to_stop():
                await asyncio.sleep(min(wait_s, _LOOK_S))
            if self.is_to_stop():
                break
            run.num_sent += 1
            task = asyncio.create_task(self._one(run, due_s, clock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        return tasks

    async def _closed(self, run: Run, clock: Clock) -> set[asyncio.Task[None]]:
        """Let clients ask until the run is over; those that still wait for an answer are returned."""

        async def ask() -> None:
            while not self._is_over(run, clock()) and not self.is_to_stop():
                run.num_sent += 1
                one = await self._one(run, clock(), clock)
                if one.outcome in ("refused", "failed"):  # as a client does that is told to wait
                    await self._pause(run, one.retry_after_s or _PAUSE_S, clock)

        tasks = {asyncio.create_task(ask()) for _ in range(int(run.load.value))}
        while any(not task.done() for task in tasks) and not self._is_over(run, clock()) and not self.is_to_stop():
            await asyncio.wait(tasks, timeout=_LOOK_S, return_when=asyncio.ALL_COMPLETED)
        return tasks

    async def _pause(self, run: Run, wait_s: float, clock: Clock) -> None:
        until_s = clock() + wait_s
        while (left_s := until_s - clock()) > 0 and not self._is_over(run, clock()) and not self.is_to_stop():
            await asyncio.sleep(min(left_s, _LOOK_S))

    async def _one(self, run: Run, due_s: float, clock: Clock) -> Measurement:
        measurement = await self.sender.send(next(self.planned), due_s, clock)
        run.measurements.append(measurement)
        self.on_progress(len(run.measurements))
        return measurement

    async def _finish(self, tasks: Collection[asyncio.Task[Any]]) -> None:
        """Wait for the requests in flight; for a short time only once the end is wanted."""
        while waiting := [task for task in tasks if not task.done()]:
            if self.is_to_stop():
                await asyncio.wait(waiting, timeout=_END_GRACE_S)
                for task in waiting:
                    task.cancel()
                await asyncio.wait(waiting, timeout=_END_GRACE_S)
                break
            await asyncio.wait(waiting, timeout=_LOOK_S)

    def _is_over(self, run: Run, due_s: float) -> bool:
        duration_s, most = self.limits.duration_s, self.limits.num_requests
        return (duration_s is not None and due_s >= duration_s) or (most is not None and run.num_sent >= most)
