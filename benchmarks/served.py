"""The real server as a process for benchmarks: started with settings, asked over kept connections, looked at from outside."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from florence2.scenes.scene import draw_scene
from florence2.scenes.synthetic import FIRST_FREE_SEED


class Served:
    """A running server.

    Attributes:
        port: where it listens.
        process: the server's process.
    """

    def __init__(self, **settings: Any) -> None:
        names = {name: value for name, value in os.environ.items() if not name.startswith("FLORENCE2_")}
        names |= {f"FLORENCE2_{name.upper()}": str(value).lower() for name, value in {"port": 0, **settings}.items()}
        command = [sys.executable, "-m", "florence2.server"]
        self.process = subprocess.Popen(command, env=names, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.port = 0
        assert self.process.stderr is not None
        seen: list[str] = []
        for line in self.process.stderr:
            seen.append(line)
            if match := re.search(r"running on http://127.0.0.1:(\d+)", line):
                self.port = int(match.group(1))
            if self.port and "ready: " in line:
                break
        else:
            raise SystemExit("the server did not start:\n" + "".join(seen[-20:]))
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    @property
    def engine_pid(self) -> int | None:
        """The number of the engine's process; None: there is none at the moment."""
        for pid in self._children():
            try:
                if b"engine_process.child" in Path("/proc", str(pid), "cmdline").read_bytes():
                    return pid
            except OSError:
                continue
        return None

    def memory_mb(self) -> dict[str, float]:
        """Memory that the server, and the engine's process if there is one, have for themselves; what is shared is divided."""
        pids = {"server": self.process.pid, "engine": self.engine_pid}
        return {name: _proportional_mb(pid) for name, pid in pids.items() if pid is not None}

    def stop(self) -> int:
        """End it; its exit code."""
        self.process.terminate()
        return self.process.wait(60)

    def _children(self) -> list[int]:
        found: list[int] = []
        for path in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            try:
                found += map(int, path.read_text().split())
            except OSError:
                continue
        return found


@contextmanager
def served(**settings: Any) -> Iterator[Served]:
    """A server that is ready, and stopped at the end."""
    server = Served(**settings)
    try:
        yield server
    finally:
        server.stop()


class Caller:
    """One connection that is kept, and made anew where the server has closed it."""

    def __init__(self, port: int, timeout_s: float = 120.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)

    def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and content of the answer to one request."""
        return self._exchange("POST", "/infer/lmm", body, {"Content-Type": "application/json"})

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and content of one page."""
        return self._exchange("GET", path, None, {})

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def _exchange(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise


def bodies(num_pictures: int, size: tuple[int, int], **fields: Any) -> list[bytes]:
    """Requests about different drawn scenes, as JPEGs of this size."""
    made = []
    for index in range(num_pictures):
        file = io.BytesIO()
        draw_scene(np.random.default_rng(FIRST_FREE_SEED + index)).image.resize(size).save(file, "JPEG", quality=90)
        image = {"type": "base64", "value": base64.b64encode(file.getvalue()).decode()}
        made.append(json.dumps({"model_id": "florence-2-demo", "prompt": "<OD>", "image": image, **fields}).encode())
    return made


def _proportional_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert match is not None
    return round(int(match.group(1)) / 1024, 1)
