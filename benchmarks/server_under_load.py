"""A server process under load, and requests to it of which none is lost track of.

``running_server`` starts one with the demo model on a free port. ``send`` sends one request over a connection of its own, may hang up in
the middle of it, and says what became of it. Sockets and HTTP are bare, so that no library sends anything twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fixtures.bare_http import exchange
from florence2.load_testing.pictures import draw_pictures

TASKS = ("<OD>", "<CAPTION>", "<DETAILED_CAPTION>", "<OCR_WITH_REGION>", "<DENSE_REGION_CAPTION>")
READY_S = 120.0
SIZE = (640, 480)


@dataclass(frozen=True)
class Outcome:
    """What became of a request.

    Attributes:
        status: the response's status; 0: the connection ended, or was refused, without a whole response.
        seconds: from sending to the last byte.
        retry_after_s: what the response says of when to come back; None: nothing.
        error: how it ended where there is no status, or the error event of a stream; "" for an answer.
    """

    status: int
    seconds: float
    retry_after_s: int | None = None
    error: str = ""


class Server:
    """A server process.

    Attributes:
        process: the process.
        port: where it listens on 127.0.0.1.
    """

    def __init__(self, *settings: str) -> None:
        assignments = [part for setting in settings for part in ("--set", setting)]
        command = [sys.executable, "-m", "florence2", "serve", "--port", "0", *assignments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.port = self._wait_for_port()
        while not self._is_ready():
            time.sleep(0.1)

    @property
    def log(self) -> str:
        """What it has written so far."""
        return "".join(self._lines)

    def pids(self) -> list[int]:
        """Its process and all that it has started."""
        found = [self.process.pid]
        for pid in found:
            with suppress(OSError):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    found += [int(child) for child in (thread / "children").read_text(encoding="ascii").split()]
        return found

    def memory_mb(self) -> float:
        """The resident memory of all its processes, in MB."""
        pages = 0
        for pid in self.pids():
            with suppress(OSError):
                pages += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as response:
            text = response.read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line)

    def _wait_for_port(self) -> int:
        end = time.monotonic() + READY_S
        while time.monotonic() < end and self.process.poll() is None:
            if (match := re.search(r"http://127\.0\.0\.1:(\d+)", self.log)) is not None:
                return int(match.group(1))
            time.sleep(0.1)
        raise RuntimeError(f"the server does not listen:\n{self.log}")

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the server has ended:\n{self.log}")
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readiness", timeout=5) as response:
            return response.status == 200
        return False


@contextmanager
def running_server(*settings: str) -> Iterator[Server]:
    """A server, ready; it is ended at the end.

    Args:
        settings: further settings, ``name=value``.
    """
    server = Server(*settings)
    try:
        yield server
    finally:
        server.terminate()
        server.process.wait(60)


def bodies(count: int, seed: int, share_streamed: float = 0.0) -> list[bytes]:
    """Bodies of requests, each a task of several with a picture of its own.

    Args:
        count: how many.
        seed: where all chance comes from.
        share_streamed: how many of them ask for a stream, from 0 to 1.
    """
    chance, pictures = Random(seed), draw_pictures(min(count, 64), SIZE, seed).pictures
    made = []
    for number in range(count):
        value = pictures[number % len(pictures)].base64(number // len(pictures)).decode()
        fields = {"model_id": "florence-2-demo", "prompt": chance.choice(TASKS), "image": {"type": "base64", "value": value}}
        made.append(json.dumps({**fields, "stream": chance.random() < share_streamed}).encode())
    return made


async def send(port: int, body: bytes, leave_after_s: float | None = None, path: str = "/infer/lmm") -> Outcome:
    """Send a request and read its response to the end.

    Args:
        port: where the server listens.
        body: JSON; empty for a GET.
        leave_after_s: after this time the connection is closed, whatever has come; None: never.
        path: what is asked.
    """
    began = time.perf_counter()
    try:
        async with asyncio.timeout(leave_after_s):
            response = await exchange(port, body, path)
    except TimeoutError:
        return Outcome(0, time.perf_counter() - began, error="left")
    except (OSError, asyncio.IncompleteReadError) as error:
        return Outcome(0, time.perf_counter() - began, error=type(error).__name__)
    return _outcome(response, time.perf_counter() - began)


def _outcome(response: bytes, seconds: float) -> Outcome:
    """What a response says; one that broke off has no status."""
    head, _, content = response.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.1 (\d+)", head)
    if status is None:
        return Outcome(0, seconds, error="no response")
    retry_after, length = (
        re.search(rb"\r\nretry-after: (\d+)", head, re.IGNORECASE),
        re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE),
    )
    wait_s = None if retry_after is None else int(retry_after.group(1))
    if length is not None:
        is_whole = len(content) >= int(length.group(1))
        return Outcome(int(status.group(1)) if is_whole else 0, seconds, wait_s, "" if is_whole else "broke off")
    if b"event: done" in content:
        return Outcome(200, seconds, wait_s)
    failed = re.search(rb'event: error\ndata: .*?"code":"(\w+)".*?"status":(\d+)', content)
    if failed is None:
        return Outcome(0, seconds, error="stream broke off")
    return Outcome(int(failed.group(2)), seconds, wait_s, failed.group(1).decode())


def percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """Half, 99 % and all of some times are at most so many milliseconds; None: there are none."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    places = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {f"{name}_ms": round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) for name, share in places.items()}
