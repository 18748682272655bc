"""What it costs that the engine has a process of its own: ``florence-2-demo`` served both ways, asked in turn.

Both servers run all the time and only one is asked: one client in pairs (a request to one, then the same to the other), and 8 and 32
clients in short turns. JPEGs of 640 x 480 and of 12 megapixels, each picture different; no image cache, so that every request goes all
the way.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.served import Caller, Served, bodies, served

SIZES = {"640x480": (640, 480), "12_megapixels": (4000, 3000)}
OPTIONS = {"num_beams": 1, "max_new_tokens": 12}
CLIENTS = (8, 32)
NUM_PICTURES = 24
WAYS = {"in_process": False, "own_process": True}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200, help="pairs of one client's requests, for each size")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn of many clients")
    parser.add_argument("--turns", type=int, default=2, help="turns of many clients, each way")
    arguments = parser.parse_args()
    common: dict[str, Any] = {"image_cache_bytes": 0, "max_requests": 1000, "precision": "fp32"}
    with served(engine_process=False, **common) as inside, served(engine_process=True, **common) as outside:
        servers = {"in_process": inside, "own_process": outside}
        figures: dict[str, Any] = {name: measure(servers, size, arguments) for name, size in SIZES.items()}
        figures["memory_mb"] = {way: server.memory_mb() for way, server in servers.items()}
    print(json.dumps(figures, indent=2))
    print(report.write("engine_process", {**vars(arguments), **OPTIONS, **common, "pictures": NUM_PICTURES}, figures))


def measure(servers: dict[str, Served], size: tuple[int, int], arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures for pictures of one size."""
    asked = bodies(NUM_PICTURES, size, **OPTIONS)
    one = in_pairs(servers, asked, arguments.pairs)
    figures: dict[str, Any] = {"one_client_ms": {way: percentiles(seconds) for way, seconds in one.items()}}
    differences = np.array(one["own_process"]) - np.array(one["in_process"])
    figures["one_client_added_ms_p50"] = round(float(np.median(differences)) * 1000, 3)
    for num_clients in CLIENTS:
        done: dict[str, list[float]] = {way: [] for way in servers}
        whole_s = dict.fromkeys(servers, 0.0)
        for _ in range(arguments.turns):
            for way, server in servers.items():
                seconds, wall_s = at_once(server, asked, num_clients, arguments.seconds)
                done[way] += seconds
                whole_s[way] += wall_s
        figures[f"{num_clients}_clients"] = {
            way: {"requests_per_s": round(len(seconds) / whole_s[way], 1), **percentiles(seconds)} for way, seconds in done.items()
        }
    return figures


def in_pairs(servers: dict[str, Served], asked: Sequence[bytes], num_pairs: int) -> dict[str, list[float]]:
    """Seconds of one client's requests each way; which way comes first takes turns."""
    callers = {way: Caller(server.port) for way, server in servers.items()}
    seconds: dict[str, list[float]] = {way: [] for way in servers}
    for number in range(-5, num_pairs):
        for way in sorted(callers, reverse=bool(number % 2)):
            took = ask(callers[way], asked[number % len(asked)])
            if number >= 0:
                seconds[way].append(took)
    return seconds


def at_once(server: Served, asked: Sequence[bytes], num_clients: int, duration_s: float) -> tuple[list[float], float]:
    """Seconds of the requests that so many clients sent within a time, and how long all of them took."""
    seconds: list[float] = []
    began = time.perf_counter()
    end = began + duration_s

    def client(first: int) -> None:
        caller, number = Caller(server.port), first
        while time.perf_counter() < end:
            seconds.append(ask(caller, asked[number % len(asked)]))
            number += 1

    threads = [threading.Thread(target=client, args=(first,)) for first in range(num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds, time.perf_counter() - began


def ask(caller: Caller, body: bytes) -> float:
    """How long one request took; it must be answered."""
    began = time.perf_counter()
    status, content = caller.post(body)
    if status != 200:
        raise SystemExit(f"{status}: {content[:300]!r}")
    return time.perf_counter() - began


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds."""
    p50, p99 = np.percentile(np.array(seconds) * 1000, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


if __name__ == "__main__":
    main()
