"""A new version of the application under load: is a request lost, and how long do both versions run side by side?

Engines are ``fixtures.fake_replica``, two of them behind two ingresses; clients check each answer, a quarter of which are streamed. The
version changes, so that Serve replaces all replicas, ingresses and engines, one after the other.

    python -m benchmarks.cluster_update              # 3 updates, 1 to 2 minutes
    python -m benchmarks.cluster_update --updates 1
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.clustered import Clustered, clustered
from fixtures.checked_load import Load, twice
from fixtures.fake_replica import demo_facts, fake_engines, noted

ANSWER_MS = 150.0
AROUND_S = 2.0
LATEST_S = 90.0


TWO = {"min_replicas": 2, "max_replicas": 2, "num_cpus": 1}
CONFIG: dict[str, Any] = {"engines": TWO, "ingress": TWO}


def update(one: Clustered, engines: type, num_clients: int) -> dict[str, Any]:
    """One update under load, until nothing of the earlier version runs."""
    before = {**one.replicas(), **one.replicas("Ingress")}
    load = Load(one.port, num_clients)
    time.sleep(AROUND_S)
    began = time.monotonic()
    one.serve(CONFIG, engines)
    served_s = time.monotonic() - began
    while set(before) & {*one.replicas(), *one.replicas("Ingress")}:
        if time.monotonic() - began > LATEST_S:
            raise SystemExit("replicas of the earlier version are still there")
        time.sleep(0.2)
    replaced_s = time.monotonic() - began
    time.sleep(AROUND_S)
    load.finish()
    return {"served_s": round(served_s, 1), "replaced_s": round(replaced_s, 1), **load.told()}


def main() -> None:
    """Run, print, write; fails if a request was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--clients", type=int, default=16)
    arguments = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    with clustered([12]) as one, tempfile.TemporaryDirectory() as name:
        engines = fake_engines(demo_facts(), ANSWER_MS, Path(name))
        one.serve(CONFIG, engines)
        one.wait_until_ready()
        for _ in range(arguments.updates):
            rounds.append(update(one, engines, arguments.clients))
            print(json.dumps(rounds[-1]), flush=True)
        again = twice(noted(Path(name))) if arguments.updates == 1 else {}
    lost = sum(one["sent"] - one["by_end"].get("200", 0) + one["wrong_answers"] for one in rounds)
    figures = {"updates": rounds, "num_lost": lost, **again}
    print(report.write("cluster_update", {**vars(arguments), "answer_ms": ANSWER_MS}, figures))
    if lost:
        raise SystemExit(f"{lost} requests were not answered")


if __name__ == "__main__":
    main()
