"""Parts of a cluster killed under load: does every request end, is none answered twice, is the service back without hands?

A Ray cluster of four nodes on this machine: the first has Serve's controller, HAProxy and the ingresses, the others the engines
(``fixtures.fake_replica``). Clients ask all the time and check each answer. By SIGKILL end, one after the other: the process of a replica,
of an ingress, of Serve's controller, of HAProxy, and a whole node, raylet, workers and all. Then with ``florence-2-demo``, of which the
engine's own process is killed. Told is for each: how requests ended, how long until the last failure, how long until as many replicas are
there as before.

    python -m benchmarks.cluster_failures                  # 2 to 3 minutes
    python -m benchmarks.cluster_failures --only replica   # one of them
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.clustered import Clustered, clustered
from fixtures.checked_load import Load, twice
from fixtures.fake_replica import demo_facts, fake_engines, noted
from fixtures.ray_processes import descendants, process_of, raylet_of

BEFORE_S, CALM_S, LATEST_S = 3.0, 3.0, 60.0
NODES = [3, 4, 4, 4]  # one more than the engines fill, so that those of a lost node have room
CONFIG: dict[str, Any] = {
    "engines": {"min_replicas": 3, "max_replicas": 3, "num_cpus": 2},
    "ingress": {"min_replicas": 2, "max_replicas": 2, "num_cpus": 1},
}
ANSWER_MS = 150.0


def kill_replica(one: Clustered) -> str:
    """End one engine replica."""
    name, pid = sorted(one.replicas().items())[0]
    os.kill(pid, signal.SIGKILL)
    return name


def kill_ingress(one: Clustered) -> str:
    """End one of the ingresses."""
    name, pid = sorted(one.replicas("Ingress").items())[0]
    os.kill(pid, signal.SIGKILL)
    return name


def kill_controller(one: Clustered) -> str:
    """End Serve's controller."""
    os.kill(process_of("SERVE_CONTROLLER"), signal.SIGKILL)
    return "SERVE_CONTROLLER_ACTOR"


def kill_haproxy(one: Clustered) -> str:
    """End HAProxy."""
    for pid in one.haproxies().values():
        os.kill(pid, signal.SIGKILL)
    return "HAProxy"


def kill_node(one: Clustered) -> str:
    """End all processes of a node that has a replica, the raylet first."""
    busy = set(one.replicas().values())
    node = next(node for node in one.nodes[1:] if busy & set(descendants(raylet_of(node))))
    pids = descendants(raylet_of(node))
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    one.nodes.remove(node)
    return f"a node with {len(busy & set(pids))} replicas"


def kill_engine(one: Clustered) -> str:
    """End the engine's process of a replica, which goes on itself."""
    name, pid = sorted(one.replicas().items())[0]
    (child,) = [child for child in descendants(pid) if b"engine_process.child" in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.kill(child, signal.SIGKILL)
    return name


KILLS: dict[str, Callable[[Clustered], str]] = {
    "replica": kill_replica,
    "ingress": kill_ingress,
    "controller": kill_controller,
    "haproxy": kill_haproxy,
    "node": kill_node,
}


def measure(one: Clustered, kill: Callable[[Clustered], str], num_clients: int, num_replicas: int, folder: Path | None) -> dict[str, Any]:
    """One killing under load, until all is as before."""
    before = noted(folder) if folder else {}
    load = Load(one.port, num_clients, are_checked=folder is not None)
    time.sleep(BEFORE_S)
    killed_at = time.monotonic()
    killed = kill(one)
    whole_s = one.wait_for_replicas(num_replicas, killed if folder else "", LATEST_S)
    while load.answered_after(killed_at) is None and time.monotonic() - killed_at < LATEST_S:
        time.sleep(0.1)
    time.sleep(CALM_S)
    load.finish()
    figures = {
        "killed": killed,
        "last_failure_s": load.answered_after(killed_at),
        "all_replicas_s": whole_s,
        **load.told(),
    }
    if folder:
        after = noted(folder)
        figures |= twice({what: {key: n for key, n in after[what].items() if n != before[what].get(key)} for what in after})
    return figures


def main() -> None:
    """Run, print, write; fails if a request did not end, or ended with another's answer, or twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--only", choices=[*KILLS, "engine"], help="only this one; nothing is written")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    with clustered(NODES) as one, tempfile.TemporaryDirectory() as name:
        for what, kill in KILLS.items():
            if arguments.only in (None, what):
                folder = Path(name) / what
                folder.mkdir()
                one.serve(CONFIG, fake_engines(demo_facts(), ANSWER_MS, folder))
                one.wait_until_ready()
                one.wait_for_replicas(3, "", LATEST_S)
                figures[what] = measure(one, kill, arguments.clients, 3, folder)
                print(what, json.dumps(figures[what]), flush=True)
        if arguments.only in (None, "engine"):
            one.serve({"engines": {"min_replicas": 1, "max_replicas": 1, "num_cpus": 2}})
            one.wait_until_ready()
            figures["engine"] = measure(one, kill_engine, 4, 1, None)
            print("engine", json.dumps(figures["engine"]), flush=True)
    _check(figures)
    if arguments.only is None:
        print(report.write("cluster_failures", {**vars(arguments), "nodes": NODES, "answer_ms": ANSWER_MS, **CONFIG}, figures))


def _check(figures: dict[str, Any]) -> None:
    for what, one in figures.items():
        wrong = one["sent"] - one["ended"] + one["wrong_answers"] + one["by_end"].get("hangs", 0)
        if wrong or one["last_failure_s"] is None:
            raise SystemExit(f"{what}: requests did not end as they should")


if __name__ == "__main__":
    main()
