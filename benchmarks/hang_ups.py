"""Clients that hang up at random moments: nothing of them is left in the server, and the next request is answered.

    python -m benchmarks.hang_ups --clients 500

Each client sends a request and closes its connection at a random moment: while it sends the body, while the picture is decoded, in the
queue, in the middle of a stream. Then rows, slots and bytes are counted by the server's metrics.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from random import Random
from typing import Any

from benchmarks import report
from benchmarks.server_under_load import Server, bodies, running_server, send

GAUGES = (
    "florence2_requests_under_way",
    "florence2_body_bytes",
    "florence2_rows",
    "florence2_requests_running",
    "florence2_requests_waiting",
    "florence2_waiting_bytes",
)
LONGEST_S = 3.0
FREE_S = 60.0


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with running_server("max_requests=4000") as server:  # all are let in: who is refused can't hang up
        figures = asyncio.run(measure(server, arguments.clients, arguments.seed))
    print(report.write("hang_ups", vars(arguments), figures).read_text(encoding="utf-8"))


async def measure(server: Server, num_clients: int, seed: int) -> dict[str, Any]:
    """The figures of one run."""
    chance = Random(seed)
    asked = bodies(num_clients + 1, seed, share_streamed=0.3)
    start_mb = server.memory_mb()
    first = await send(server.port, asked[-1])
    moments = [chance.uniform(0, LONGEST_S) ** 2 / LONGEST_S for _ in range(num_clients)]  # more of them early, while bodies come in
    outcomes = await asyncio.gather(*(send(server.port, body, moment) for body, moment in zip(asked, moments, strict=False)))
    left_at = time.perf_counter()
    held = {name: await asyncio.to_thread(server.metric, name) for name in GAUGES}
    while any(held.values()) and time.perf_counter() < left_at + FREE_S:
        await asyncio.sleep(0.02)
        held = {name: await asyncio.to_thread(server.metric, name) for name in GAUGES}
    freed_s = time.perf_counter() - left_at
    after = await send(server.port, asked[-1])
    return {
        "num_clients": num_clients,
        "num_hung_up": sum(outcome.error == "left" for outcome in outcomes),
        "others_by_status": {
            str(status): count for status, count in Counter(one.status for one in outcomes if one.error != "left").items()
        },
        "all_free_after_s": round(freed_s, 2),
        "held_then": held,
        "answer_before_ms": round(first.seconds * 1000, 1),
        "next_answer": {"status": after.status, "ms": round(after.seconds * 1000, 1)},
        "memory_mb": {"start": round(start_mb), "end": round(server.memory_mb())},
    }


if __name__ == "__main__":
    main()
