"""Every message on the page of troubles is one that is really printed: each is provoked here, or stands below with the reason why not.

``…`` on the page stands for what differs. A message that nobody provokes, and a provoked one that the page lacks, are both errors.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import florence2
from florence2.client import InferenceConfiguration, InferenceHTTPClient
from florence2.cluster.started import ray_at
from florence2.draw import fonts, system_fonts
from florence2.errors import Florence2Error
from florence2.model.cpu import kernels
from florence2.server import errors as server_errors
from florence2.sources import remember
from tests.docs.markdown import ROOT, fences
from tests.server.process import running_server

PAGE = ROOT / "docs" / "troubleshooting.md"
TEXT = PAGE.read_text(encoding="utf-8")
SCENE = str(ROOT / "examples" / "scene.png")
MESSAGES = [fence.content.strip() for fence in fences(TEXT) if fence.language == "text"]
NOT_PROVOKED = {
    "ERROR: No matching distribution found for torch": "pip's own words, on systems that the tests do not run on",
}
# Codes that need no entry of their own, and why.
NOT_ON_THE_PAGE = {
    "invalid_request": "the root of those that are there",
    "validation_failed": "its message names the part; errors.md",
    "model_mismatch": "its message says it all; errors.md",
    "headers_too_large": "no client that people use",
    "bad_framing": "no client that people use",
    "unsupported_media_type": "its message says what to send; errors.md",
    "not_found": "its message names the path; errors.md",
    "method_not_allowed": "its message names the method; errors.md",
    "unsupported_argument": "its message names the argument; openai.md",
    "client_left": "nobody reads it",
}
NOWHERE = "http://127.0.0.1:9"
KEY = "0123456789abcdef"


def matches(shown: str, message: str) -> bool:
    """Whether a message is the one that the page shows."""
    return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), message, re.DOTALL) is not None


def message_of(provoke: Callable[[], object]) -> str:
    with pytest.raises(Florence2Error) as caught:
        provoke()
    return str(caught.value)


@pytest.fixture(scope="module")
def engine() -> Iterator[florence2.Engine]:
    with florence2.load("florence-2-demo", precision="fp32") as engine:
        yield engine


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an empty checkpoint, a damaged one, an adapter without a base and a data set without its picture."""
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "damaged", "adapter"):
        (tmp_path / name).mkdir()
    demo = ROOT / "src" / "florence2" / "demo"
    for path in demo.iterdir():
        if path.is_file():
            (tmp_path / "damaged" / path.name).write_bytes(path.read_bytes()[: 1000 if path.suffix == ".safetensors" else None])
    config = {"peft_type": "LORA", "base_model_name_or_path": "gone/base", "lora_alpha": 4, "r": 2}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter" / "adapter_model.safetensors").touch()
    (tmp_path / "bad.jsonl").write_text('{"image": "nope.jpg", "prompt": "<OD>", "answer": ""}\n')
    return tmp_path


def of_the_engine(engine: florence2.Engine) -> Iterator[Callable[[], object]]:
    jpeg = io.BytesIO()
    Image.open(SCENE).convert("RGB").save(jpeg, "JPEG")
    images: list[Any] = [b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 200, b"<html><body>no</body></html>", jpeg.getvalue()[:3000]]
    for image in [*images, "missing.png", np.full((4, 4, 3), 255.0)]:
        yield lambda image=image: engine.run(image, "<OD>")
    for prompt in ("OD", "<ODD>", "<OPEN_VOCABULARY_DETECTION>", "<REGION_TO_OCR>"):
        yield lambda prompt=prompt: engine.run(SCENE, prompt)
    yield lambda: engine.run(SCENE, "<REGION_TO_OCR>", region=(500, 500, 600, 600))
    yield lambda: engine.run(SCENE, "<CAPTION_TO_PHRASE_GROUNDING>", text="a red star " * 400)
    wrong: list[dict[str, Any]] = [{"max_new_tokens": 9000}, {"num_beams": 0}, {"beams": 1}]
    for options in wrong:
        yield lambda options=options: engine.run(SCENE, "<OD>", **options)
    yield lambda: engine.add_adapter("mine", _whole("whole"))


def _whole(folder: str) -> Path:
    """The folder of an adapter with a norm that was trained as a whole."""
    Path(folder).mkdir()
    Path(folder, "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    norm = "base_model.model.model.language_model.decoder.layernorm_embedding.weight"
    save_file({norm: torch.ones(2)}, Path(folder, "adapter_model.safetensors"))
    return Path(folder)


def test_messages_of_the_engine(engine: florence2.Engine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # type: ignore[arg-type] - an installation without the extra
    hold([message_of(provoke) for provoke in of_the_engine(engine)])


def test_messages_of_drawings(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "a.png").write_bytes(Path(SCENE).read_bytes())
    found = {"<OD>": {"bboxes": [[9, 9, 90, 90]], "labels": ["한"]}}
    result = florence2.Result.from_dict(found, (480, 480))
    asked = replace(result, _source=remember("a.png"))
    (folder / "a.png").write_bytes(b"")
    messages = [message_of(lambda: result.annotate(Image.new("RGB", (100, 80)))), message_of(result.annotate), message_of(asked.annotate)]
    monkeypatch.setattr(system_fonts, "font_folders", lambda: (folder,))
    monkeypatch.setattr(fonts, "_reported", set())
    result.annotate(SCENE)
    hold([*messages, caplog.records[-1].getMessage()])


def test_messages_of_loading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(folder / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    names = ("florence-2-bas", "./nowhere", "./empty", "./damaged", "florence-2-base", "./adapter")
    found = [message_of(lambda name=name: florence2.load(name)) for name in names]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found.append(message_of(lambda: florence2.load(device="cuda")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found.append(message_of(lambda: florence2.load("florence-2-base")))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_HUB_CACHE", "/dev/null/x")
    found.append(message_of(lambda: florence2.load("florence-2-base")))
    engine = florence2.load("florence-2-demo", precision="fp32")
    engine.close()
    hold([*found, message_of(lambda: engine.run(SCENE, "<OD>"))])


def test_messages_of_the_installation(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\nimport florence2\ntry: florence2.load\nexcept florence2.Florence2Error as e: print(e)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    monkeypatch.setattr(kernels, "_origin", None)
    monkeypatch.setattr(kernels, "_kernels", None)
    monkeypatch.setattr(kernels, "fitting_libraries", lambda *_: [])
    monkeypatch.setenv("PATH", "/nowhere")
    with caplog.at_level("INFO", kernels._log.name):
        kernels.prepare()
    if sys.platform == "linux":
        hold([caplog.messages[-1]])
    hold([ran.stdout.strip()])


def test_messages_of_the_client() -> None:
    client = InferenceHTTPClient(NOWHERE).configure(InferenceConfiguration(max_retries=0))
    wrong: Any = {"beams": 2}
    hold(
        [
            message_of(lambda: client.infer_lmm(SCENE, "m", "<OD>")),
            message_of(lambda: client.infer_lmm(SCENE, prompt="<OD>")),
            message_of(lambda: client.infer_lmm(SCENE, "m", "<OD>", **wrong)),
        ]
    )


def test_messages_of_a_cluster() -> None:
    hold([message_of(lambda: ray_at("127.0.0.1:1", {}).__enter__())])


@pytest.mark.slow
def test_messages_of_the_server() -> None:
    """With the statuses that the page names; those of load and time are provoked by the server's own tests."""
    with running_server(management_keys=[KEY], max_image_pixels=1000, allow_model_management=False, models={"m": "florence-2-demo"}) as url:
        picture = {"image": ("scene.png", Path(SCENE).read_bytes())}
        form = {"model_id": "m", "prompt": "<OD>"}
        answers = [
            httpx2.post(f"{url}/infer/lmm", files=picture, data=form),
            httpx2.post(f"{url}/infer/lmm", files=picture, data={**form, "api_key": KEY}, timeout=60),
            httpx2.post(f"{url}/model/add", json={"model_id": "m", "api_key": KEY}),
        ]
    assert [answer.status_code for answer in answers] == [401, 413, 403]
    for answer in answers:
        assert f"`{answer.json().get('code', 'unauthorized')}`" in TEXT
    hold([answer.json()["message"] for answer in answers])


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["infer", SCENE, "--prompt", "<OCR>"],
        ["train", "--data", "bad.jsonl", "--output", "run"],
        ["train", "--model", "florence-2-demo", "--data", "bad.jsonl", "--output", "run"],
        ["evaluate", "--model", "florence-2-demo", "--data", "nothing.jsonl"],
        ["train", "--model", "florence-2-demo", "--data", "bad.jsonl", "--output", "taken"],
        ["serve", "--host", "127.0.0.1", "--port"],
    ],
    ids=lambda words: " ".join(words[:1]),
)
def test_messages_of_the_command_line(folder: Path, words: list[str]) -> None:
    (folder / "taken" / "adapter").mkdir(parents=True)
    (folder / "taken" / "adapter" / "adapter_config.json").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        if words[0] == "serve":
            words = [*words, str(taken.getsockname()[1])]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLORENCE2_")}
        environment = {**kept, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "florence2.cli", *words]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    told = [line.removeprefix("florence2: ") for line in ran.stderr.splitlines() if line.startswith("florence2: ")]
    hold(told[:1], ran.stderr)


PROVOKED: set[str] = set()


def hold(messages: list[str], more: str = "") -> None:
    """Each message is on the page."""
    assert messages, more
    for message in messages:
        shown = [shown for shown in MESSAGES if matches(shown, message)]
        assert shown, f"not on the page: {message}"
        PROVOKED.update(shown)


def num_provoking() -> int:
    """The tests above that provoke messages, each case of them counted."""
    tests = [value for name, value in globals().items() if name.startswith("test_messages_of_")]
    return sum(prod(len(mark.args[1]) for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize") for test in tests)


def test_all_that_the_page_shows_is_provoked(request: pytest.FixtureRequest) -> None:
    """After all of the above, in one process; with some of them deselected there is nothing to say."""
    selected = [item for item in request.session.items if item.path == Path(__file__) and item.name.startswith("test_messages_of_")]
    if len(selected) < num_provoking():
        pytest.skip("only a part of this file was run")
    missing = [shown for shown in MESSAGES if shown not in PROVOKED and shown not in NOT_PROVOKED]
    if sys.platform != "linux":  # where the compiled routines are
        missing = [shown for shown in missing if "compiled routines" not in shown]
    assert missing == []


def codes(kind: type) -> set[str]:
    return {kind.code, *(code for below in kind.__subclasses__() for code in codes(below))}  # type: ignore[attr-defined]


def test_every_code_is_on_the_page_or_left_out_on_purpose() -> None:
    known = {code for code in codes(Florence2Error) if not code.startswith(("connection", "unexpected"))}
    ours = {value.code for module in (florence2.errors, server_errors) for value in vars(module).values() if hasattr(value, "code")}
    missing = {code for code in ours & known if f"`{code}`" not in TEXT}
    assert missing == set(NOT_ON_THE_PAGE) & ours & known
