"""The request of the page as programs: each is run as it stands, and the server gets exactly what was asked on the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pydantic import SecretStr

from fixtures.fake_engine import FakeEngine
from florence2.server.app import create_app
from florence2.server.settings import Settings
from tests.compatibility import install
from tests.playground.viewer.stage import Stage, encoded, patched

pytestmark = pytest.mark.slow

KEY = "key-of-the-snippets"
GROUNDING = "<CAPTION_TO_PHRASE_GROUNDING>"
NAME = 'it\'s a "사진" \\ $HOME;type=x, 1.png'
TEXTS = [
    """it's "quoted" `id` $(id) ${HOME} \\ \\n %s {x} !history #x; & | > * ? ~ \\""",
    "first\nsecond\r\nthird\ttab 'mixed' \\",
    "강아지 🐕‍🦺 كلب é \u2028 end",
    "turned \u202e round \u200b zero \ufeff mark",
    "\x01 \x1b[31m red \x7f \x85 \\x41 'a'",
    "@/etc/passwd",
    "-F image=@/etc/passwd;type=text/html",
    '\'\'\' """ \\" f"{1}"',
]
# Runs programs one after the other, as importing a client takes longer than running it.
RUN_ALL = """
import contextlib, io, json, sys
printed = []
for program in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(program, "snippet", "exec"), {"__name__": "__main__"})
    printed.append(out.getvalue())
json.dump(printed, sys.stdout)
"""


class Server:
    """A real server around a scripted engine, which keeps what it is asked."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self._num_seen = 0
        settings: dict[str, Any] = dict.fromkeys(("allow_http_urls", "allow_urls_without_domain", "allow_private_urls"), True)
        app = create_app(Settings(api_keys=[SecretStr(KEY)], **settings), engine=self.engine)
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> Server:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def asked(self) -> list[dict[str, Any]]:
        """What was asked since the last call: prompt, region and options of each request."""
        asked, self._num_seen = self.engine.asked[self._num_seen :], len(self.engine.asked)
        names = ("prompt", "num_beams", "max_new_tokens", "scores")
        return [{name: request[name] for name in names if request.get(name) not in (None, False)} for request in asked]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where programs run, beside the picture."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / NAME).write_bytes(encoded(patched()))
    return folder


def requests_of(server: Server) -> list[dict[str, Any]]:
    """What is asked on the page."""
    base = {"address": server.url, "model": "florence-2-base", "needsKey": True, "imageName": NAME, "width": 400, "height": 300}
    region = [17, 33, 399, 300]
    return [
        *[{**base, "tag": GROUNDING, "text": text, "kind": "boxes"} for text in TEXTS],
        {**base, "tag": "what is it, 'then'?\n<b>", "text": None, "kind": "text"},
        {**base, "tag": "<REGION_TO_OCR>", "region": region, "kind": "text", "options": {}},
        {**base, "tag": "<OD>", "kind": "boxes", "options": {"num_beams": 2, "max_new_tokens": 9, "scores": True, "raw": None}},
    ]


def expected() -> list[dict[str, Any]]:
    """What the engine is asked by each."""
    region = "<loc_42><loc_109><loc_997><loc_999>"  # 33 / 0.3 is just below 110 in single precision
    return [
        *[{"prompt": GROUNDING + text.strip()} for text in TEXTS],
        {"prompt": "what is it, 'then'?\n<b>"},
        {"prompt": f"<REGION_TO_OCR>{region}"},
        {"prompt": "<OD>", "num_beams": 2, "max_new_tokens": 9, "scores": True},
    ]


def written(stage: Stage, kind: str, requests: list[dict[str, Any]]) -> list[str]:
    """The programs for requests."""
    script = "([kind, requests]) => import('/snippets.js').then((snippets) => requests.map((request) => snippets[kind](request)))"
    programs = stage.run(script, [kind, requests])
    assert all(KEY not in program for program in programs)
    return programs


def run(interpreter: str | Path, programs: list[str], folder: Path) -> list[str]:
    """What Python programs print."""
    names = {name: value for name, value in os.environ.items() if name.upper() not in ("HTTP_PROXY", "ALL_PROXY", "PYTHONPATH")}
    names |= {"API_KEY": KEY, "PYTHONUTF8": "1", "PYTHONPATH": os.pathsep.join(sys.path) if interpreter == sys.executable else ""}
    command = [str(interpreter), "-c", RUN_ALL]
    ran = subprocess.run(command, input=json.dumps(programs), cwd=folder, env=names, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_curl(stage: Stage, server: Server, folder: Path, shell: str) -> None:
    requests, wanted = requests_of(server), expected()
    if shell == "sh":
        keep = [index for index, text in enumerate(TEXTS) if "\x1b" not in text and "\r" not in text]  # these need bash's quotes
        requests, wanted = [requests[index] for index in keep], [wanted[index] for index in keep]
    for program in written(stage, "curl", requests):
        ran = subprocess.run([shell, "-c", program], cwd=folder, env={**os.environ, "API_KEY": KEY, "no_proxy": "*"}, capture_output=True)
        answer = json.loads(ran.stdout)
        assert "response" in answer, (answer, program)
    assert server.asked() == wanted


def test_our_client(stage: Stage, server: Server, folder: Path) -> None:
    printed = run(sys.executable, written(stage, "python", requests_of(server)), folder)
    assert server.asked() == expected()
    assert printed[-1].strip() == "{'<OD>': {'bboxes': [[0, 0, 399, 299]], 'labels': ['thing'], 'scores': [0.5]}}"


def test_the_known_client(stage: Stage, server: Server, folder: Path) -> None:
    try:
        interpreter = install.python()
    except install.RegistryUnreachable as unreachable:
        pytest.skip(str(unreachable))
    programs = written(stage, "inferenceSdk", requests_of(server))
    assert "# inference_sdk has no option for num_beams, scores.\n" in programs[-1]
    printed = run(interpreter, programs, folder)
    assert server.asked() == [*expected()[:-1], {"prompt": "<OD>", "max_new_tokens": 9}]
    assert printed[-1].strip() == "{'<OD>': {'bboxes': [[0, 0, 399, 299]], 'labels': ['thing']}}"


def test_openai(stage: Stage, server: Server, folder: Path) -> None:
    printed = run(sys.executable, written(stage, "openai", requests_of(server)), folder)
    assert server.asked() == expected()
    assert json.loads(printed[-1]) == {"<OD>": {"bboxes": [[0, 0, 399, 299]], "labels": ["thing"], "scores": [0.5]}}
    assert "What text is in the region" in printed[-2]


def test_json(stage: Stage, server: Server) -> None:
    bodies = [json.loads(text) for text in written(stage, "json", [{**one, "imageBase64": "AAAA"} for one in requests_of(server)])]
    assert [body["prompt"] for body in bodies[:2]] == [GROUNDING] * 2
    assert [body["text"] for body in bodies[: len(TEXTS)]] == TEXTS
    assert bodies[-2]["region"] == [17, 33, 399, 300]
    assert bodies[-1] == {
        "model_id": "florence-2-base",
        "prompt": "<OD>",
        "num_beams": 2,
        "max_new_tokens": 9,
        "scores": True,
        "image": {"type": "base64", "value": "AAAA"},
    }


def test_links_and_servers_without_keys(stage: Stage, server: Server, folder: Path) -> None:
    link = stage.link("it's 1.png?a=1&b=$HOME", patched())
    asked = {"address": server.url, "model": "florence-2-base", "tag": "<OD>", "imageUrl": link, "kind": "boxes"}
    (curl,) = written(stage, "curl", [{**asked, "needsKey": True}])
    ran = subprocess.run(["sh", "-c", curl], env={**os.environ, "API_KEY": KEY, "no_proxy": "*"}, capture_output=True, check=False)
    assert json.loads(ran.stdout)["image"] == {"width": 400, "height": 300}
    programs = [*written(stage, "python", [{**asked, "needsKey": True}]), *written(stage, "openai", [{**asked, "needsKey": True}])]
    assert len(run(sys.executable, programs, folder)) == 2
    assert server.asked() == [{"prompt": "<OD>"}] * 3
    for kind in ("curl", "python", "inferenceSdk", "openai", "json"):
        (program,) = written(stage, kind, [{**asked, "needsKey": False}])
        assert "API_KEY" not in program
        assert "import os" not in program
