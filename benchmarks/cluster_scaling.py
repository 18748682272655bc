"""Answers a second of one to four replicas with ``florence-2-demo``, on the cores that this machine has.

The real server on Ray Serve, each replica with an engine of one thread, in a closed loop. With as many replicas as cores the processor is
the limit, not Ray: more replicas share the same cores, with the ingress and the clients.

    python -m benchmarks.cluster_scaling                # 1, 2, 4 replicas; 2 to 3 minutes
    python -m benchmarks.cluster_scaling --seconds 5
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from benchmarks import report
from benchmarks.clustered import Clustered, clustered
from fixtures.checked_load import Load
from fixtures.ray_processes import descendants, processor_s

WARM_S = 3.0
CLIENTS_OF_A_REPLICA = 12


def measure(one: Clustered, num_replicas: int, seconds: float) -> dict[str, Any]:
    """The answers of so many replicas."""
    load = Load(one.port, CLIENTS_OF_A_REPLICA * num_replicas, share_streamed=0, are_checked=False)
    time.sleep(WARM_S)
    engines = [pid for replica in one.replicas().values() for pid in descendants(replica)]
    ingresses = list(one.replicas("Ingress").values())
    before, spent = len(load.ended), [sum(map(processor_s, pids)) for pids in (engines, ingresses)]
    began = time.monotonic()
    time.sleep(seconds)
    counted = load.ended[before:]
    took = time.monotonic() - began
    used = [sum(map(processor_s, pids)) - earlier for pids, earlier in zip((engines, ingresses), spent, strict=True)]
    load.finish()
    wrong = [one.end for one in counted if one.end != "200"]
    if wrong or not counted:
        raise SystemExit(f"not answered: {wrong[:5]}")
    times = sorted(one.ended_at - one.sent_at for one in counted)
    return {
        "answers_per_s": round(len(counted) / took, 1),
        "p50_ms": round(1000 * times[len(times) // 2]),
        "p99_ms": round(1000 * times[min(len(times) - 1, int(len(times) * 0.99))]),
        "processor_ms_an_answer": {name: round(1000 * s / len(counted), 1) for name, s in zip(("engines", "ingress"), used, strict=True)},
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each number of replicas")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # an engine for each core: threads of one would take the others'
    figures: dict[str, Any] = {}
    with clustered([8]) as one:
        for count in arguments.replicas:
            one.serve({"engines": {"min_replicas": count, "max_replicas": count, "num_cpus": 1}})
            one.wait_until_ready()
            one.wait_for_replicas(count, "", 60)
            figures[str(count)] = measure(one, count, arguments.seconds)
            print(count, json.dumps(figures[str(count)]), flush=True)
    print(report.write("cluster_scaling", vars(arguments), {"cores": os.cpu_count(), "by_replicas": figures}))


if __name__ == "__main__":
    main()
