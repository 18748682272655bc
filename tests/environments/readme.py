"""The README's three steps as a stranger takes them: its own lines, in an environment that its first line alone has filled.

Run by ``python -m tests.environments readme``, which runs the first step. The demo model stands in for the published one, which would
have to be downloaded, and the example's picture for the photo.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sysconfig
import time
from importlib.metadata import requires
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("\n## Three steps\n")[2].partition("\n## ")[0]
STEPS = [line for block in re.findall(r"^```sh\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE) for line in block.splitlines()]
ENVIRONMENT = {**os.environ, "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]), "NO_PROXY": "localhost"}
PATIENCE_S = 240


def step(beginning: str) -> list[str]:
    """The README's lines that begin so, with what is at hand in the place of what is not."""
    lines = [line for line in STEPS if line.startswith(beginning)]
    assert lines, f"README has no line that begins with {beginning!r}"
    return [line.replace("florence-2-base", "florence-2-demo").replace("photo.jpg", str(ROOT / "examples" / "scene.png")) for line in lines]


def run(line: str, folder: Path) -> str:
    """What a line prints."""
    ended = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_first_step_names_this_distribution() -> None:
    (line,) = step("pip install")
    named = re.fullmatch(r"pip install '(?P<name>[\w-]+)\[(?P<extra>\w+)\]'", line)
    assert named is not None
    assert f'extra == "{named["extra"]}"' in " ".join(requires(named["name"]) or []).replace("'", '"')


def test_the_second_step_answers(tmp_path: Path) -> None:
    caption, detection = step("florence2 infer")
    assert "circle" in run(caption, tmp_path)
    assert "star" in run(detection, tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scene-od.png"]


def test_the_third_step_serves(tmp_path: Path) -> None:
    (serve,) = (line for line in step("florence2 serve") if "--model" in line)
    (ask,) = (line for line in step("curl") if "infer/lmm" in line)
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(["bash", "-c", f"exec {serve} --port 0"], cwd=tmp_path, env=ENVIRONMENT, stdout=file, stderr=file)
    try:
        answer = run(ask.replace("http://localhost:9001", f"-s --fail-with-body {address(process, log)}"), tmp_path)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert "yellow star" in json.loads(answer)["response"]["<OD>"]["labels"]


def address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the server listens, once it is ready."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text())
        if found and subprocess.run(["curl", "-sf", f"{found[0]}/readiness"], capture_output=True, check=False).returncode == 0:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(log.read_text())
