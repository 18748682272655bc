"""The engine's process killed ten times under load: every request ends in an answer or a 5xx, and none is lost.

The real server with ``florence-2-demo`` and clients that ask all the time. Every few seconds the engine's process is ended by SIGKILL,
SIGSEGV or SIGSTOP (which makes it hang). Counted are requests sent and ended, by status, and how long it takes until the server says that
it is ready again. A client that gets no whole answer is counted as lost.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks import report
from benchmarks.served import Caller, Served, bodies, served

KINDS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)
LATEST_S = 120.0
LOOK_S = 0.02
SETTINGS: dict[str, Any] = {"engine_heartbeat_s": 3, "image_cache_bytes": 0}


class Load:
    """Clients that ask one request after the other.

    Attributes:
        num_sent: requests so far.
        ended: how they ended: statuses, and "lost".
    """

    def __init__(self, port: int, asked: Sequence[bytes], num_clients: int) -> None:
        self.num_sent = 0
        self.ended: Counter[str] = Counter()
        self._port, self._asked = port, asked
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(num_clients)]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Send no more, and wait for the answers."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        caller = Caller(self._port)
        while not self._is_over.is_set():
            with self._lock:
                self.num_sent += 1
            try:
                end = str(caller.post(self._asked[number % len(self._asked)])[0])
            except (OSError, http.client.HTTPException):
                end = "lost"
            with self._lock:
                self.ended[end] += 1
            number += 1
            if end != "200":
                time.sleep(0.2)  # a client that is told to try again does not hammer


def main() -> None:
    """Run, print, write; fails if a request was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    asked = bodies(24, (640, 480), num_beams=1)
    with served(**SETTINGS) as server:
        load = Load(server.port, asked, arguments.clients)
        kills = [kill(server, KINDS[number % len(KINDS)], chance.uniform(0.5, 3.0)) for number in range(arguments.kills)]
        time.sleep(1)
        load.finish()
    figures = {
        "sent": load.num_sent,
        "ended": load.ended.total(),
        "by_status": dict(sorted(load.ended.items())),
        "kills": kills,
        "slowest_until_ready_s": max(one["until_ready_s"] for one in kills),
    }
    print(json.dumps(figures, indent=2))
    wrong = [end for end in load.ended if end != "200" and not end.startswith("5") and end != "429"]
    if wrong or figures["sent"] != figures["ended"]:
        raise SystemExit(f"requests ended wrongly: {wrong}, sent {figures['sent']}, ended {figures['ended']}")
    print(report.write("engine_kill", {**vars(arguments), **SETTINGS}, figures))


def kill(server: Served, number: signal.Signals, delay_s: float) -> dict[str, Any]:
    """End the engine's process after a while, and wait until the server is ready again."""
    time.sleep(delay_s)
    caller = Caller(server.port)
    pid = server.engine_pid
    assert pid is not None
    began = time.monotonic()
    os.kill(pid, number)
    noticed_s, slowest_healthz_s = None, 0.0
    while True:
        asked_at = time.monotonic()
        healthy = caller.get("/healthz")[0]
        slowest_healthz_s = max(slowest_healthz_s, time.monotonic() - asked_at)
        is_ready = caller.get("/readiness")[0] == 200
        if noticed_s is None and not is_ready:
            noticed_s = time.monotonic() - began
        if noticed_s is not None and is_ready:
            break
        if healthy != 200 or time.monotonic() - began > LATEST_S:
            raise SystemExit(f"the server did not get well after {number.name}")
        time.sleep(LOOK_S)
    return {
        "signal": number.name,
        "until_not_ready_s": round(noticed_s, 3),
        "until_ready_s": round(time.monotonic() - began, 3),
        "slowest_healthz_s": round(slowest_healthz_s, 3),
    }


if __name__ == "__main__":
    main()
