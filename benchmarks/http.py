"""What the HTTP layer costs: the server in a process of its own, with an engine that answers at once.

A JPEG of 200 kB in base64, as the known client sends it. One connection after another gives the latency that the server adds, 16 at
once its throughput; ``/healthz`` is asked while 100 requests wait for an engine that does not answer. What JSON, base64 and
decoding cost by themselves, which nobody is spared, is measured in turn with the requests; ``added_ms`` is the rest.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import report

BASE64_CHARS = 200_000
SIZE = (640, 480)
NUM_SEQUENTIAL = 300
NUM_CONCURRENT = 600
CLIENTS = 16
WAITING = 100
WARM_UP = 30


def main() -> None:
    """Measure, print and write; with ``--serve``, be the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true")
    if parser.parse_args().serve:
        serve()
        return
    field = {"type": "base64", "value": base64.b64encode(jpeg()).decode("ascii")}
    body = json.dumps({"api_key": "KEY", "model_id": "florence-2-base", "prompt": "<OD>", "image": field}).encode()
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.http", "--serve"], stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        port = wait_for_port(server)
        figures = measure(port, body)
    finally:
        server.terminate()
        server.wait(30)
    settings = {
        "base64_characters": len(field["value"]),
        "image_size": SIZE,
        "body_bytes": len(body),
        "clients": CLIENTS,
        "waiting": WAITING,
    }
    print(json.dumps(figures, indent=2))
    print(report.write("http", settings, figures))


def measure(port: int, body: bytes) -> dict[str, Any]:
    """All figures of one server."""
    with Caller(port) as caller:
        for _ in range(WARM_UP):
            caller.infer(body)
        cpu_s = json.loads(caller.get("/cpu"))
        one, alone = [], []
        for _ in range(NUM_SEQUENTIAL):  # in turn, so that both meet the same machine
            one += timed(lambda: caller.infer(body), 1)
            alone += timed(lambda: decode(body), 1)
        cpu_s = json.loads(caller.get("/cpu")) - cpu_s
        empty = timed(lambda: caller.get("/healthz"), NUM_SEQUENTIAL)
    many, wall_s = concurrently(port, body)
    with Caller(port) as caller:
        caller.get("/hold")
        with waiting(port, body):
            while json.loads(caller.get("/held"))["waiting"] < WAITING:
                time.sleep(0.01)
            healthy = timed(lambda: caller.get("/healthz"), 100)
            caller.get("/release")
    return {
        "one_at_a_time_ms": percentiles(one),
        "decoding_alone_ms": percentiles(alone),
        "added_ms": {name: round(value - percentiles(alone)[name], 3) for name, value in percentiles(one).items() if name != "max"},
        "cpu_ms_per_request": round(cpu_s / NUM_SEQUENTIAL * 1000, 3),
        "healthz_ms": percentiles(empty),
        "concurrent_ms": percentiles(many),
        "concurrent_requests_per_s": round(len(many) / wall_s, 1),
        "healthz_while_100_wait_ms": percentiles(healthy),
    }


class Caller:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def __enter__(self) -> Caller:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._connection.close()

    def infer(self, body: bytes) -> bytes:
        """One request; it must succeed."""
        self._connection.request("POST", "/infer/lmm", body, {"Content-Type": "application/json"})
        return self._read()

    def get(self, path: str) -> bytes:
        """One page."""
        self._connection.request("GET", path)
        return self._read()

    def _read(self) -> bytes:
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {content[:300]!r}")
        return content


class waiting:  # noqa: N801 - reads as a verb
    """Has 100 requests wait as long as it is entered."""

    def __init__(self, port: int, body: bytes) -> None:
        self._threads = [threading.Thread(target=self._ask, args=(port, body)) for _ in range(WAITING)]

    def __enter__(self) -> None:
        """Send them."""
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        """Take the answers."""
        for thread in self._threads:
            thread.join()

    @staticmethod
    def _ask(port: int, body: bytes) -> None:
        with Caller(port) as caller:
            caller.infer(body)


def concurrently(port: int, body: bytes) -> tuple[list[float], float]:
    """The times of many requests from some clients at once, and how long all took."""
    seconds: list[float] = []

    def ask() -> None:
        with Caller(port) as caller:
            seconds.extend(timed(lambda: caller.infer(body), NUM_CONCURRENT // CLIENTS))

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds, time.perf_counter() - began


def timed(call: Callable[[], object], count: int) -> list[float]:
    """How long each of some calls took, in seconds."""
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and largest, in milliseconds."""
    p50, p99, largest = np.percentile(np.array(seconds) * 1000, [50, 99, 100])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(float(largest), 3)}


def jpeg() -> bytes:
    """A photograph-like JPEG whose base64 has about 200,000 characters."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    noise = rng.normal(0, 12, (SIZE[1], SIZE[0], 3))
    picture = Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))
    candidates = [encode(picture, quality) for quality in range(50, 100)]
    return min(candidates, key=lambda data: abs(len(data) * 4 / 3 - BASE64_CHARS))


def encode(picture: Image.Image, quality: int) -> bytes:
    """A JPEG file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def decode(body: bytes) -> Image.Image:
    """What any server has to do before a model can look: JSON, base64, pixels."""
    data = base64.b64decode(json.loads(body)["image"]["value"])
    return Image.open(io.BytesIO(data)).convert("RGB")


def wait_for_port(server: subprocess.Popen[str]) -> int:
    """Where the server listens."""
    assert server.stderr is not None
    for line in server.stderr:
        if match := re.search(r"running on http://127.0.0.1:(\d+)", line):
            threading.Thread(target=server.stderr.read, daemon=True).start()
            return int(match.group(1))
    raise RuntimeError("the server did not start")


def serve() -> None:
    """The server with a fake engine, and four paths to steer it."""
    import uvicorn
    from fastapi.responses import JSONResponse

    from fixtures.fake_engine import FakeEngine
    from florence2.server.app import create_app
    from florence2.server.http.logs import set_up
    from florence2.server.settings import Settings

    class ForgetfulEngine(FakeEngine):
        """Keeps no pictures of what it has answered."""

        def submit(self, image: Any, prompt: Any, **options: Any) -> Any:
            future = super().submit(image, prompt, **options)
            if not self.hold:
                for kept in (self.asked, self.pictures, self.futures):
                    kept.clear()
            return future

    set_up("info", as_json=False)
    engine = ForgetfulEngine()
    app = create_app(Settings(max_requests=2 * WAITING, model=["florence-2-base"]), engine=engine)

    @app.get("/hold")
    async def hold() -> JSONResponse:
        engine.hold = True
        return JSONResponse({})

    @app.get("/cpu")
    async def cpu() -> float:
        return time.process_time()

    @app.get("/held")
    async def held() -> JSONResponse:
        return JSONResponse({"waiting": sum(not future.done() for future in engine.futures)})

    @app.get("/release")
    async def release() -> JSONResponse:
        engine.release()
        return JSONResponse({})

    uvicorn.run(app, port=0, log_config=None, access_log=False, timeout_keep_alive=75)


if __name__ == "__main__":
    main()
