"""What every environment must be able to do, asked of the installed distribution as users ask it: by its command, its SDK and its server.

Run by ``python -m tests.environments``, and by name (``pytest tests/environments/smoke.py``); the whole
suite holds the same claims in detail.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from PIL import Image

import florence2
from florence2.client import InferenceHTTPClient
from florence2.model.cpu.building import COMPILERS

ROOT = Path(__file__).resolve().parents[2]
SCENE = ROOT / "examples" / "scene.png"
COMMANDS = ("", "infer", "models", "pull", "serve", "mcp", "train", "evaluate", "doctor")
SHAPES = {"white circle", "yellow star", "purple circle"}  # of the scene; the demo model finds them
PROGRAM = Path(sysconfig.get_path("scripts")) / "florence2"
PATIENCE_S = 240


def run(*arguments: object) -> str:
    """What a command of the installed program prints."""
    words = [str(PROGRAM), *map(str, arguments)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def engine() -> Iterator[florence2.Engine]:
    with florence2.load("florence-2-demo") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as file:
        words = [PROGRAM, "serve", "--model", "florence-2-demo", "--port", "0"]
        process = subprocess.Popen(words, stdout=file, stderr=file)
    try:
        yield wait_for_address(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM), log.read_text()


def wait_for_address(process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(PATIENCE_S * 10):
        with_port = re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text())
        if with_port is not None and is_ready(with_port[0]):
            return with_port[0]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    raise AssertionError(log.read_text())


def is_ready(address: str) -> bool:
    try:
        return httpx2.get(f"{address}/readiness", verify=False).status_code == 200  # reading all certificates takes its time
    except httpx2.TransportError:
        return False


def labels_of(body: object) -> set[str]:
    """The labels of an answer to ``<OD>``."""
    assert isinstance(body, dict), body
    return set(body["response"]["<OD>"]["labels"])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command: str) -> None:
    assert "Usage: florence2" in run(*[command] * bool(command), "--help")


def test_the_version() -> None:
    assert run("--version") == f"florence2 {florence2.__version__}\n"


def test_the_command_answers() -> None:
    told = json.loads(run("infer", SCENE, "--prompt", "<OD>", "--model", "florence-2-demo", "--json"))
    assert set(re.findall(r'"((?:white|yellow|purple) \w+)"', json.dumps(told))) == SHAPES


def test_the_engine_answers(engine: florence2.Engine) -> None:
    result = engine.run(SCENE, "<OD>")
    assert set(result.labels or ()) == SHAPES
    assert "circle" in engine.run(SCENE, "<CAPTION>").text


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_every_precision_answers(precision: str) -> None:
    with florence2.load("florence-2-demo", device="cpu", precision=precision) as loaded:
        assert set(loaded.run(SCENE, "<OD>").labels or ()) == SHAPES


@pytest.mark.parametrize("form", ["AVIF", "WEBP", "JPEG", "TIFF", "GIF", "BMP"])
def test_every_format_is_read(engine: florence2.Engine, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"scene.{form.lower()}"
    Image.open(SCENE).convert("RGB").save(path, form)
    assert "yellow star" in set(engine.run(path, "<OD>").labels or ())


def test_the_compiled_routines_come_from_where_they_should() -> None:
    """From the wheel, if it is one with routines: no compiler is needed then, and none is asked."""
    routines = json.loads(run("doctor", "--quick", "--json"))["routines"]
    can_be_built = any(shutil.which(name) for name in COMPILERS)
    assert can_be_built == (os.environ.get("FLORENCE2_TEST_COMPILER", str(can_be_built)) == "True")
    if os.environ.get("FLORENCE2_TEST_WHEEL") == "native":
        assert routines["kind"] == "wheel"
    else:
        assert routines["kind"] in (("built", "cache") if can_be_built else ("none",))


def test_drawing(engine: florence2.Engine) -> None:
    from florence2 import draw

    picture = Image.open(SCENE).convert("RGB")
    drawn = draw.annotate(picture, engine.run(picture, "<OD>"))
    assert drawn.size == picture.size
    assert drawn.tobytes() != picture.tobytes()


class TestServer:
    def test_json(self, server: str) -> None:
        body = {"image": {"type": "base64", "value": base64.b64encode(SCENE.read_bytes()).decode()}, "prompt": "<OD>"}
        answered = httpx2.post(f"{server}/infer/lmm/florence-2-demo", json=body, timeout=PATIENCE_S)
        assert labels_of(answered.json()) == SHAPES

    def test_a_form(self, server: str) -> None:
        files = {"image": ("scene.png", SCENE.read_bytes(), "image/png")}
        answered = httpx2.post(f"{server}/infer/lmm/florence-2-demo", data={"prompt": "<OD>"}, files=files, timeout=PATIENCE_S)
        assert labels_of(answered.json()) == SHAPES

    def test_the_client(self, server: str) -> None:
        client = InferenceHTTPClient(api_url=server)
        assert labels_of(client.infer_lmm(str(SCENE), model_id="florence-2-demo", prompt="<OD>")) == SHAPES

    def test_errors_are_json(self, server: str) -> None:
        answered = httpx2.post(f"{server}/infer/lmm/florence-2-demo", json={"prompt": "<OD>"})
        assert answered.status_code in (400, 422)
        assert answered.json()["message"]

    @pytest.mark.parametrize(
        ("path", "holds"), [("/docs", "html"), ("/openapi.json", "/infer/lmm"), ("/metrics", "# TYPE"), ("/", "florence2")]
    )
    def test_pages(self, server: str, path: str, holds: str) -> None:
        answered = httpx2.get(f"{server}{path}")
        assert answered.status_code == 200
        assert holds in answered.text


def test_tools_for_assistants() -> None:
    import asyncio

    from mcp import Client, StdioServerParameters

    arguments = ["mcp", "--model", "florence-2-demo", "--allow", str(SCENE.parent)]

    async def found() -> set[str]:
        async with Client(StdioServerParameters(command=str(PROGRAM), args=arguments)) as client:
            answer = await client.call_tool("detect", {"image": SCENE.name})
            return {one["label"] for one in (answer.structured_content or {})["objects"]}

    assert asyncio.run(asyncio.wait_for(found(), PATIENCE_S)) == SHAPES


def test_training_and_evaluation(tmp_path: Path) -> None:
    data = "synthetic:8?tasks=OD&words=0"
    made = tmp_path / "run"
    small = ["--epochs", "1", "--batch-size", "4", "--rank", "4", "--freeze-vision", "--device", "cpu"]
    run("train", "--model", "florence-2-demo", "--data", data, "--output", made, *small, "--tensorboard")
    assert (made / "adapter" / "adapter_model.safetensors").is_file()
    measured = tmp_path / "measured"
    run("evaluate", "--model", made / "adapter", "--data", "synthetic:2?tasks=OD&words=0", "--output", measured)
    assert {"ap", "ap50"} <= json.loads((measured / "evaluation.json").read_text())["figures"]["<OD>"].keys()
