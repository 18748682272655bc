"""SIGTERM under load: every accepted request is answered, new ones are refused, and the server exits with 0.

    python -m benchmarks.drain --rounds 5

In each round a server gets requests in an open loop, more than it can answer; SIGTERM comes in the middle of it. A request that was sent
before the signal has to be answered; one that comes later gets 503, or its connection is refused, or reset where the system had taken
it when the server stopped listening.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from random import Random
from typing import Any

from benchmarks import report
from benchmarks.server_under_load import Outcome, Server, bodies, running_server, send

RATE = 40.0
BEFORE_S, AFTER_S = 5.0, 3.0
NUM_BODIES = 128
REFUSED = ("ConnectionRefusedError", "ConnectionResetError")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    asked = bodies(NUM_BODIES, arguments.seed, share_streamed=0.2)
    rounds = []
    for number in range(arguments.rounds):
        with running_server("drain_timeout_s=60") as server:
            rounds.append(asyncio.run(one_round(server, asked, Random(arguments.seed + number))))
    figures = {"rounds": rounds, "num_lost": sum(one["num_lost"] for one in rounds)}
    print(report.write("drain", vars(arguments), figures).read_text(encoding="utf-8"))


async def one_round(server: Server, asked: list[bytes], chance: Random) -> dict[str, Any]:
    """The figures of one server's end."""
    sending = asyncio.create_task(open_loop(server.port, asked, chance))
    await asyncio.sleep(BEFORE_S)
    server.terminate()
    signalled = time.perf_counter()
    exit_code = await asyncio.to_thread(server.process.wait, 120)
    took_s = time.perf_counter() - signalled
    sent = await sending
    before = [outcome for at, outcome in sent if at < signalled]
    after = [outcome for at, outcome in sent if at >= signalled]
    return {
        "exit_code": exit_code,
        "ended_after_s": round(took_s, 2),
        "sent_before": _counts(before),
        "sent_after": _counts(after),
        "num_lost": sum(not one.status for one in before) + sum(not one.status and one.error not in REFUSED for one in after),
    }


async def open_loop(port: int, asked: list[bytes], chance: Random) -> list[tuple[float, Outcome]]:
    """When each request was sent, and what became of it."""

    async def one(body: bytes) -> tuple[float, Outcome]:
        at = time.perf_counter()
        return at, await send(port, body)

    tasks, due = [], time.perf_counter()
    end = due + BEFORE_S + AFTER_S
    while (due := due + chance.expovariate(RATE)) < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(asked[len(tasks) % len(asked)])))
    return await asyncio.gather(*tasks)


def _counts(outcomes: list[Outcome]) -> dict[str, int]:
    return dict(sorted(Counter(str(outcome.status) if outcome.status else outcome.error for outcome in outcomes).items()))


if __name__ == "__main__":
    main()
