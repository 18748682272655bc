"""A load test of this project's server by this project's tool: rising rates, answers streamed, the demo model, on one machine.

The server is a process of its own, as ``florence2 serve`` starts it; the generator runs beside it and takes a part of the same
processors, which its own lag shows. Writes ``results/load_test.json``, and the picture of it that the documentation shows.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2

from benchmarks import report
from florence2.load_testing.load_test import Settings, Watcher, measure
from florence2.load_testing.options import parse_loads, parse_questions
from florence2.load_testing.pictures import draw_pictures
from florence2.load_testing.plot import draw
from florence2.load_testing.running import Limits

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "load_test.png"
MODEL = "florence-2-demo"
RATES = "5,10,20,30,40,60"
SECONDS = 20.0
TARGET_S = 2.0
SIZE = (640, 480)
START_S = 120.0


def main() -> None:
    """Measure, print, write and draw."""
    command = [sys.executable, "-m", "florence2", "serve", "--model", MODEL, "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ)
    try:
        url = wait_until_ready(server)
        result = asyncio.run(run(url))
    finally:
        server.terminate()
        server.wait(60)
    result["server"]["url"] = ""  # the port was the system's choice
    print(report.write("load_test", {"model": MODEL, "rates": RATES, "seconds": SECONDS, "target_s": TARGET_S, "size": SIZE}, result))
    with PICTURE.open("wb") as file:
        draw(result, file)
    print(PICTURE)


async def run(url: str) -> dict[str, Any]:
    """The result of the test."""
    settings = Settings(url, parse_loads(RATES, None), Limits(SECONDS), model=MODEL, is_streamed=True, target_s=TARGET_S, warm_up=32)
    watcher = Watcher(on_figures=lambda run: print(run["load"], run["latency_s"], run["warnings"], flush=True))
    return await measure(settings, parse_questions(None, (), ()), lambda: draw_pictures(32, SIZE, 0), watcher)


def wait_until_ready(server: subprocess.Popen[str]) -> str:
    """The server's address, once it is ready."""
    assert server.stderr is not None
    url = next((found[0] for line in server.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+", line))), None)
    if url is None:
        raise RuntimeError("the server did not start")
    threading.Thread(target=server.stderr.read, daemon=True).start()
    deadline = time.monotonic() + START_S
    while httpx2.get(f"{url}/readiness", verify=False).status_code != 200:
        if time.monotonic() > deadline:
            raise RuntimeError("the server did not become ready")
        time.sleep(0.1)
    return url


if __name__ == "__main__":
    main()
