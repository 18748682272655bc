"""A cluster without engines: how long the first request waits for one, where that time goes, and when the engine leaves again.

The real server with ``florence-2-demo`` and engines from 0 to 1. Several rounds: one request while there is no replica, until it is
answered; a second one, warm; then nothing, until the replica has left. Of a cold start is told when the replica's process and its engine's
were started, by the operating system, and when the answer came.

    python -m benchmarks.cluster_zero              # 3 rounds, 1 to 2 minutes
    python -m benchmarks.cluster_zero --rounds 1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.clustered import Clustered, clustered
from benchmarks.server_under_load import bodies, send
from fixtures.ray_processes import descendants

LATEST_S = 90.0
DOWNSCALE_S = 3.0
CONFIG: dict[str, Any] = {"engines": {"min_replicas": 0, "max_replicas": 1, "num_cpus": 1, "downscale_delay_s": DOWNSCALE_S}}


def cold_start(one: Clustered, body: bytes) -> dict[str, float]:
    """One request while there is no replica, by phases in seconds; then one while there is."""
    asked_at = _since_boot()
    cold = asyncio.run(send(one.port, body))
    (pid,) = one.replicas().values()
    child = next(child for child in descendants(pid) if b"engine_process.child" in Path(f"/proc/{child}/cmdline").read_bytes())
    replica_at, engine_at = _began_at(pid), _began_at(child)
    warm = asyncio.run(send(one.port, body))
    if (cold.status, warm.status) != (200, 200):
        raise SystemExit(f"not answered: {cold}, {warm}")
    return {
        "until_replica_s": round(replica_at - asked_at, 2),
        "replica_until_engine_s": round(engine_at - replica_at, 2),
        "engine_until_answer_s": round(asked_at + cold.seconds - engine_at, 2),
        "cold_s": round(cold.seconds, 2),
        "warm_s": round(warm.seconds, 3),
    }


def until_gone(one: Clustered) -> float:
    """The seconds until no replica is left."""
    began = time.monotonic()
    while time.monotonic() - began < LATEST_S:
        if not one.replicas():
            return round(time.monotonic() - began, 2)
        time.sleep(0.1)
    raise SystemExit("the replica does not leave")


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _began_at(pid: int) -> float:
    """When a process was started, in seconds since the machine was."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    (body,) = bodies(1, 0)
    rounds: list[dict[str, float]] = []
    with clustered([4]) as one:
        one.serve(CONFIG)
        one.wait_until_ready()
        for _ in range(arguments.rounds):
            rounds.append(cold_start(one, body))
            rounds[-1]["gone_after_s"] = until_gone(one)
            print(json.dumps(rounds[-1]), flush=True)
    medians = {name: median(one[name] for one in rounds) for name in rounds[0]}
    print(report.write("cluster_zero", {**vars(arguments), **CONFIG}, {"rounds": rounds, "median": medians}))


if __name__ == "__main__":
    main()
