"""``florence2 cluster serve`` as operators start it: a process with a Ray of its own, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import pytest

from florence2.cluster.started import free_port
from tests.server.process import Server

pytestmark = pytest.mark.slow
SCENE = Path(__file__).parents[2] / "examples" / "scene.png"
FILE = """
settings: {model: florence-2-demo, warm_up: false, api_keys: [a-key-of-this-test]}
engines: {num_cpus: 0.5}
ingress: {num_cpus: 0.5}
"""


def test_the_command_answers_and_ends_with_all_that_it_has_started(tmp_path: Path) -> None:
    config, port = tmp_path / "cluster.yaml", free_port()
    config.write_text(FILE)
    own = ("RAY_", "FLORENCE2_")  # the other tests' Ray is described there
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    command = [sys.executable, "-m", "florence2", "cluster", "serve", "--config", str(config), "--port", str(port)]
    server = Server(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
    try:
        url = server.wait_for(r"serving at (http://\S+)").group(1)
        asked = {"url": f"{url}/infer/lmm", "data": {"model_id": "florence-2-demo", "prompt": "<OD>"}, "timeout": 30}
        assert httpx.post(**asked, files={"image": SCENE.read_bytes()}).status_code == 401
        headers = {"authorization": "Bearer a-key-of-this-test"}
        answered = httpx.post(**asked, headers=headers, files={"image": SCENE.read_bytes()})
        assert answered.json()["response"]["<OD>"]["labels"] == ["white circle", "yellow star", "purple circle"]
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 0, server.log
    finally:
        server.process.kill()
        server.process.wait()
    assert "a-key-of-this-test" not in server.log
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))
