"""A server at twice its capacity, in an open loop: every request is answered or refused, none is lost, and memory stays flat.

    python -m benchmarks.soak --minutes 10

Capacity is measured first, by clients that wait for their answers. Then requests of several tasks come at random times, twice as many
as that; a part is streamed, and some clients hang up at random moments. Memory is that of all processes of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from benchmarks import report
from benchmarks.server_under_load import Outcome, Server, bodies, percentiles, running_server, send

NUM_BODIES = 512
CLIENTS = 16
CAPACITY_S = 15.0
SHARE_STREAMED, SHARE_LEAVING = 0.2, 0.03
LOOK_S = 1.0
SETTLED_S = 120.0  # memory counts from here on, or from a third of a shorter run
FLAT = 0.05


@dataclass
class Seen:
    """What was seen of the server during the run.

    Attributes:
        outcomes: of each request that was not left by its client.
        num_left: clients that hung up.
        memory: the second, and the memory in MB.
        health_s: how long each ``/healthz`` took.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    num_left: int = 0
    memory: list[tuple[float, float]] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with running_server() as server:
        figures = asyncio.run(measure(server, arguments.minutes * 60, arguments.seed))
    print(report.write("soak", vars(arguments), figures).read_text(encoding="utf-8"))


async def measure(server: Server, duration_s: float, seed: int) -> dict[str, Any]:
    """The figures of one run."""
    asked = bodies(NUM_BODIES, seed, SHARE_STREAMED)
    start_mb = server.memory_mb()
    rate = 2 * await capacity(server, asked)
    seen, watching = Seen(), asyncio.Event()
    watchers = [asyncio.create_task(watch_health(server, seen, watching)), asyncio.create_task(watch_memory(server, seen, watching))]
    began = time.perf_counter()
    num_sent = await open_loop(server, asked, rate, duration_s, seen, Random(seed))
    ended_s = time.perf_counter() - began
    watching.set()
    await asyncio.gather(*watchers)
    return {"capacity_per_s": round(rate / 2, 2), "sent_per_s": round(rate, 2), **figures_of(seen, num_sent, duration_s, ended_s, start_mb)}


async def capacity(server: Server, asked: Sequence[bytes]) -> float:
    """Answers a second, with clients that wait for theirs."""
    end = time.perf_counter() + CAPACITY_S
    answered = 0

    async def client(number: int) -> None:
        nonlocal answered
        while time.perf_counter() < end:
            outcome = await send(server.port, asked[(number * 31 + answered) % len(asked)])
            answered += outcome.status == 200 and time.perf_counter() < end

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return answered / CAPACITY_S


async def open_loop(server: Server, asked: Sequence[bytes], rate: float, duration_s: float, seen: Seen, chance: Random) -> int:
    """Send at random times, whatever becomes of earlier requests; the number of requests, all of which have ended."""

    async def one(body: bytes, leave_after_s: float | None) -> None:
        outcome = await send(server.port, body, leave_after_s)
        if outcome.error == "left":
            seen.num_left += 1
        else:
            seen.outcomes.append(outcome)

    began = due = time.perf_counter()
    running: set[asyncio.Task[None]] = set()
    num_sent = 0
    while (due := due + chance.expovariate(rate)) < began + duration_s:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        leave_after_s = chance.uniform(0, 10) if chance.random() < SHARE_LEAVING else None
        task = asyncio.create_task(one(asked[num_sent % len(asked)], leave_after_s))
        running.add(task)
        task.add_done_callback(running.discard)
        num_sent += 1
    await asyncio.gather(*running)
    return num_sent


async def watch_health(server: Server, seen: Seen, is_over: asyncio.Event) -> None:
    """Ask ``/healthz`` ten times a second."""
    while not is_over.is_set():
        seen.health_s.append((await send(server.port, b"", path="/healthz")).seconds)
        await asyncio.sleep(0.1)


async def watch_memory(server: Server, seen: Seen, is_over: asyncio.Event) -> None:
    """Note the memory every second."""
    began = time.perf_counter()
    while not is_over.is_set():
        seen.memory.append((time.perf_counter() - began, server.memory_mb()))
        await asyncio.sleep(LOOK_S)


def figures_of(seen: Seen, num_sent: int, duration_s: float, ended_s: float, start_mb: float) -> dict[str, Any]:
    """What the run has shown."""
    statuses = Counter(outcome.status for outcome in seen.outcomes)
    settled = [mb for second, mb in seen.memory if min(SETTLED_S, duration_s / 3) <= second <= duration_s]
    fifth = max(1, len(settled) // 5)
    first_mb, last_mb = (sum(part) / len(part) for part in (settled[:fifth], settled[-fifth:]))
    return {
        "num_sent": num_sent,
        "num_ended": len(seen.outcomes) + seen.num_left,
        "num_left_by_client": seen.num_left,
        "by_status": {str(status): count for status, count in sorted(statuses.items())},
        "num_lost": statuses[0],
        "lost_how": dict(Counter(outcome.error for outcome in seen.outcomes if not outcome.status)),
        "last_ended_after_s": round(ended_s, 1),
        "accepted": percentiles([outcome.seconds for outcome in seen.outcomes if outcome.status == 200]),
        "refused": percentiles([outcome.seconds for outcome in seen.outcomes if outcome.status == 429]),
        "retry_after_s": dict(sorted(Counter(outcome.retry_after_s for outcome in seen.outcomes if outcome.status == 429).items())),
        "healthz": percentiles(seen.health_s),
        "memory_mb": {
            "start": round(start_mb),
            "settled": round(first_mb),
            "end": round(last_mb),
            "most": round(max(mb for _, mb in seen.memory)),
        },
        "memory_growth": round(last_mb / first_mb - 1, 3),
        "memory_is_flat": abs(last_mb / first_mb - 1) <= FLAT,
    }


if __name__ == "__main__":
    main()
