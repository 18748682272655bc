"""How many requests pass through the ingress of a cluster, in front of engines that need no processor: is it the limit?

Real Ray Serve with HAProxy, the real ingress, one to four replicas of ``fixtures.fake_replica`` (48 rows, a pause for an answer: each can
give a known number of answers a second). ``wrk`` keeps more connections busy than the replicas have rows. Told are answers a second, and
the processor time that each process spent on a request, which does not depend on what else the machine does.

    python -m benchmarks.cluster_ingress                # 1 to 4 replicas, JPEG in JSON, then other bodies with all of them; 2 minutes
    python -m benchmarks.cluster_ingress --seconds 3    # a short try
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import report
from benchmarks.clustered import Clustered, clustered
from fixtures.fake_replica import demo_facts, fake_engines
from fixtures.ray_processes import processor_s
from florence2.cluster.config import MAX_ROWS

SCENE = Path(__file__).resolve().parents[1] / "examples" / "scene.png"
BOUNDARY = "a-line-that-is-in-no-picture"
ROOM = 1.3  # connections for each row: the replicas are never idle
SCRIPT = """
local file = io.open("{body}", "rb")
wrk.method, wrk.body = "POST", file:read("*a")
file:close()
wrk.headers["Content-Type"] = "{content_type}"
local shown = 0
function response(status, headers, body)
  if status ~= 200 then
    shown = shown + 1
    if shown < 3 then io.stderr:write(status, " ", string.sub(body, 1, 300), "\\n") end
  end
end
"""


def bodies() -> dict[str, tuple[str, bytes]]:
    """The requests by their names: content type and body."""
    scene, jpeg = SCENE.read_bytes(), _jpeg((640, 640), 90)
    return {
        "JPEG in JSON": ("application/json", _json(jpeg)),
        "JPEG as a form": (f"multipart/form-data; boundary={BOUNDARY}", _form(jpeg, "image/jpeg")),
        "PNG in JSON": ("application/json", _json(scene)),
        "PNG as a form": (f"multipart/form-data; boundary={BOUNDARY}", _form(scene, "image/png")),
        "JPEG of a camera in JSON": ("application/json", _json(_jpeg((640, 480), 75))),
    }


def _jpeg(size: tuple[int, int], quality: int) -> bytes:
    file = io.BytesIO()
    with Image.open(SCENE) as picture:
        picture.convert("RGB").resize(size).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _json(data: bytes) -> bytes:
    image = {"type": "base64", "value": base64.b64encode(data).decode()}
    return json.dumps({"model_id": "florence-2-demo", "prompt": "<OD>", "image": image}).encode()


def _form(data: bytes, media_type: str) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("model_id", "florence-2-demo"), ("prompt", "<OD>"))
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\nContent-Type: {media_type}\r\n\r\n'
    return "".join([*parts, head]).encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def measure(one: Clustered, content_type: str, body: bytes, connections: int, seconds: float) -> dict[str, Any]:
    """The load of one body for a while."""
    watched = {"ingress": one.replicas("Ingress"), "engines": one.replicas("Engines"), "haproxy": one.haproxies()}
    return loaded(watched, one.port, content_type, body, connections, seconds)


def loaded(
    watched: Mapping[str, Mapping[str, int]], port: int, content_type: str, body: bytes, connections: int, seconds: float
) -> dict[str, Any]:
    """What ``wrk`` tells of a load, and the processor time that the watched processes spend on a request."""
    before = {name: _spent(pids) for name, pids in watched.items()}
    with tempfile.TemporaryDirectory() as folder:
        path, script = Path(folder) / "body", Path(folder) / "post.lua"
        path.write_bytes(body)
        script.write_text(SCRIPT.format(body=path, content_type=content_type), encoding="utf-8")
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "--latency", "-s", str(script)]
        told = subprocess.run([*command, f"http://127.0.0.1:{port}/infer/lmm"], capture_output=True, text=True, check=True)
    figures = _read(told.stdout)
    num_requests = max(figures["num_requests"], 1)
    figures["processor_ms_a_request"] = {
        name: round(1000 * (_spent(pids) - before[name]) / num_requests, 2) for name, pids in watched.items()
    }
    if figures["num_not_answered"]:
        raise SystemExit(f"{figures['num_not_answered']} of {num_requests} requests were not answered: {told.stderr}")
    return figures


def _spent(pids: Mapping[str, int]) -> float:
    return sum(map(processor_s, pids.values()))


def _read(text: str) -> dict[str, Any]:
    """What ``wrk`` has told."""
    rate, requests = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"(\d+) requests in", text)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    if rate is None or requests is None:
        raise SystemExit(f"wrk has told something else:\n{text}")
    shares = re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)$", text, re.MULTILINE)
    lost = (int(failed.group(1)) if failed else 0) + (sum(map(int, errors.groups())) if errors else 0)
    counts = {"requests_per_s": round(float(rate.group(1)), 1), "num_requests": int(requests.group(1)), "num_not_answered": lost}
    return {**counts, **{f"p{share}_ms": _ms(value, unit) for share, value, unit in shares}}


def _ms(value: str, unit: str) -> float:
    return round(float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit], 1)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each load")
    parser.add_argument("--answer-ms", type=float, default=240.0, help="how long an engine takes for an answer")
    parser.add_argument("--replicas", type=int, default=4, help="the most engines")
    parser.add_argument("--ingresses", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed (apt-get install wrk)")
    engines, asked = fake_engines(demo_facts(), arguments.answer_ms), bodies()
    figures: dict[str, Any] = {
        "answers_per_s_of_a_replica": round(MAX_ROWS * 1000 / arguments.answer_ms, 1),
        "by_replicas": {},
        "by_body": {},
    }
    with clustered([16]) as one:
        for count in range(1, arguments.replicas + 1):
            replicas = {"min_replicas": count, "max_replicas": count, "num_cpus": 1}
            ingress = {"min_replicas": arguments.ingresses, "max_replicas": arguments.ingresses}
            one.serve({"engines": replicas, "ingress": ingress, "settings": {"max_requests": 512}}, engines)
            one.wait_until_ready()
            figures["by_replicas"][str(count)] = measure(one, *asked["JPEG in JSON"], round(count * MAX_ROWS * ROOM), arguments.seconds)
            print(count, figures["by_replicas"][str(count)], flush=True)
        for name, (content_type, body) in asked.items():
            connections = round(arguments.replicas * MAX_ROWS * ROOM)
            figures["by_body"][name] = {"num_bytes": len(body), **measure(one, content_type, body, connections, arguments.seconds)}
            print(name, figures["by_body"][name], flush=True)
    print(report.write("cluster_ingress", vars(arguments), figures))


if __name__ == "__main__":
    main()
