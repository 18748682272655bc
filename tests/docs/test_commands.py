"""Every command of README and docs runs as it stands, in a real shell, with a photo of 3 MB for each picture that it names.

What is replaced: the server's address by that of a server process of this test, picture URLs by a host of this test, and ``/data/``
by a folder of it. The hub is a stand-in whose every repository is a tiny random checkpoint. ``florence2 serve`` has to become ready
and to end when it is told to. A command that can't run here is listed below with the reason; a new one has to run or be listed.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from fixtures.checkpoints import write_checkpoint
from florence2.cli.app import commands_of
from tests.docs.commands import Command, commands, mentioned, pages_with_commands
from tests.docs.markdown import PAGES, ROOT
from tests.docs.test_examples import write_adapter
from tests.hub import Repository, running_hub
from tests.labelling.journals import answer, boxes, record, write_journal
from tests.server.process import running_server
from tests.training.sets import write_pictures

NOT_RUN = {
    r"make \w+": "builds whole environments or runs for hours; test_links.py holds the targets",
    r"pip install ": "needs the package registry",
}
PAGES_NOT_RUN = {
    "docs/cluster.md": "starts Ray several times; run in small by tests/cluster",
    "docs/deploy.md": "needs Docker or Kubernetes; held against the files of deploy/ by tests/deploy/test_docs.py",
    "docs/fine-tune.md": "trains for minutes; run in small by test_fine_tune.py",
    "docs/label.md": "labels, trains and measures what it has labelled; run in small by test_label.py",
    "docs/scale.md": "measures for minutes",
}
# Shell words that need no explanation beside the programs under test.
PLAIN = {"export", "cd", "find", "mkdir", "printf", "echo", "cat", "jq", "base64", "cp", "for", "curl", "florence2"}

PHOTO_BYTES = (2_800_000, 3_600_000)
RUN_S = 120.0
_SERVER = re.compile(r"(?:https?://)?(?:localhost|127\.0\.0\.1):9001")
_PICTURE_URL = re.compile(r"https://[\w.-]+/[^\s\"']*?\.(?:jpe?g|png)")
_PICTURE = re.compile(r"(?<![\w/.:-])(?:\./)?[\w][\w./*-]*\.(jpe?g|png|webp)\b")
_SEVERAL = re.compile(r"\b[\w-]+\.(?:pdf|mp4)\b")
_DATA_SET = re.compile(r"--data[ =]\"?([\w./-]+\.jsonl?)")
_FOLDER = re.compile(r"(?<![\w./-])(?:\./|data/)[\w-]+(?![\w./-])")


HELLO = (
    b'{"jsonrpc": "2.0", "id": 1, "method": "initialize", '
    b'"params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}}\n'
)


class _AnyRepository(dict):
    """A hub on which every name is the same checkpoint."""

    def get(self, name: Any, default: Any = None) -> Any:
        return self["any"]

    def __missing__(self, name: str) -> Any:
        return self["any"]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 3 MB as phones take them, one of each kind of file."""
    folder = tmp_path_factory.mktemp("photo")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (1600, 1600, 3), dtype=np.uint8))
    noise.save(folder / "photo.jpg", quality=95)
    for name in ("photo.png", "photo.webp"):
        noise.crop((0, 0, 1024, 1024)).save(folder / name, lossless=True)
    assert all(PHOTO_BYTES[0] < path.stat().st_size < PHOTO_BYTES[1] for path in folder.iterdir()), list(folder.iterdir())
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), generation={"num_beams": 1, "max_new_tokens": 8})


@pytest.fixture(scope="module")
def picture_host(photo: Path) -> Iterator[str]:
    class Files(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=str(photo))) as host:
        thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{host.server_address[1]}"
        host.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_server(model=["florence-2-base"], allow_http_urls=True, allow_urls_without_domain=True, allow_private_urls=True) as url:
        yield url


@pytest.fixture(scope="module")
def hub(tiny: Path) -> Iterator[str]:
    with running_hub() as served:
        repository = Repository()
        paths = [path for path in tiny.rglob("*") if path.is_file()]
        repository.add("main", {path.relative_to(tiny).as_posix(): path.read_bytes() for path in paths})
        served.repositories = _AnyRepository(any=repository)
        yield served.address


def _write_several(path: Path) -> None:
    """A document of two pages, or a video of two frames."""
    import av

    pictures = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
    if path.suffix == ".pdf":
        pictures[0].save(path, save_all=True, append_images=pictures[1:])
        return
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=1)
        stream.width, stream.height = pictures[0].size
        for picture in pictures:
            video.mux(stream.encode(av.VideoFrame.from_image(picture)))
        video.mux(stream.encode())


class Shell:
    """The folder and the environment that one page's commands run in, one after the other."""

    def __init__(self, folder: Path, photo: Path, tiny: Path, server: str, picture_host: str, hub: str) -> None:
        self.folder, self.photo, self.tiny, self.server, self.picture_host = folder, photo, tiny, server, picture_host
        programs = folder.parent / "bin"
        programs.mkdir()
        script = programs / "florence2"
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m florence2.cli "$@"\n')
        script.chmod(0o755)
        (folder.parent / ".curlrc").write_text('silent\nshow-error\nfail-with-body\nnoproxy = "*"\nmax-time = 60\n')
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLORENCE2_", "HF_", "API_KEY"))}
        self.environment = {
            **kept,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "CURL_HOME": str(folder.parent),
            "HF_ENDPOINT": hub,
            "HF_HOME": str(folder.parent / "hub"),
            "NO_PROXY": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": "1",
            "XDG_DATA_HOME": str(folder.parent / "data"),
            "FLORENCE2_HOST": "127.0.0.1",
            "FLORENCE2_PORT": "0",
        }
        self.exported = ""
        (folder / "examples").mkdir(parents=True)
        shutil.copy(photo / "photo.png", folder / "examples" / "scene.png")
        write_adapter(folder / "my-adapter")
        (folder / "keys.txt").write_text("a-key-of-the-docs\n")

    def prepared(self, text: str) -> str:
        """The command for this folder and these servers, with all that it names in its place."""
        text = _SERVER.sub(self.server, text)
        text = _PICTURE_URL.sub(f"{self.picture_host}/photo.jpg", text)
        text = re.sub(r"(?<![\w.])/data/", "data/", text).replace("~/Pictures", "examples")
        text = re.sub(r"synthetic:\d+", "synthetic:4", text)
        text = re.sub(r"--port[ =]\d+", "--port 0", re.sub(r"--host[ =]\S+", "--host 127.0.0.1", text))
        if "florence2 bench serve" in text:
            text = re.sub(r"--duration[ =]\S+", "--duration 1s", text)
            text = re.sub(r"--requests[ =]\d+", "--requests 8", text) + ("" if "photos" in text else " --generate 1 --size 64x48")
        for match in _PICTURE.finditer(text):
            if "*" not in match[0] and not (self.folder / match[0]).exists() and f"{self.picture_host}" not in match[0]:
                self._put(self.photo / f"photo.{match[1].replace('jpeg', 'jpg')}", match[0])
        for match in _SEVERAL.finditer(text):
            _write_several(self.folder / match[0])
        if re.search(r"\bflorence2 (?:infer|label|bench serve \S+) photos\b", text) and not (self.folder / "photos").exists():
            self._put(self.photo / "photo.jpg", "photos/one.jpg")
        for match in _DATA_SET.finditer(text):
            self._write_data_set(self.folder / match[1])
        for match in _FOLDER.finditer(text):
            if not (self.folder / match[0]).exists():
                shutil.copytree(self.tiny, self.folder / match[0])
        return text

    def _put(self, source: Path, name: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, self.folder / name)

    def _write_data_set(self, path: Path) -> None:
        if not path.exists():
            names = write_pictures(path.parent, 4)
            lines = [{"image": name, "prefix": "<CAPTION>", "suffix": "a picture"} for name in names]
            path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        script = f"set -o pipefail\n{self.exported}\n{self.prepared(text)}"
        return subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=RUN_S, check=False
        )

    def view(self, text: str, folder: str) -> None:
        """Start the page of a label run by its command, with a run in the folder that it names, and end it."""
        if not (self.folder / folder).exists():
            write_journal(self.folder / folder, {"tasks": ["<OD>"]}, record("a.jpg", answer("<OD>", boxes(("car", (10, 10, 50, 60), 0.9)))))
        self.serve(f"{text} --no-browser{'' if '--port' in text else ' --port 0'}", "/api/summary")

    def serve(self, text: str, ready_path: str = "/readiness") -> None:
        """Start a server by its command, wait until it is ready, and end it."""
        script = f"{self.exported}\n{self.prepared(text)}"
        log = self.folder.parent / "serve.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-c", script], cwd=self.folder, env=self.environment, stdout=output, stderr=output, start_new_session=True
            )
        try:
            self._wait_until_ready(process, log, ready_path)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            code = process.wait(60)
        assert code in (0, -signal.SIGTERM), log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()

    def offer(self, text: str) -> None:
        """Start ``florence2 mcp`` by its command, greet it, and end it."""
        script = f"{self.exported}\n{self.prepared(text)}{' --port 0' if '--http' in text else ''}"
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen[bytes](
            ["bash", "-c", script], cwd=self.folder, env=self.environment, start_new_session=True, **pipes
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                if "--http" in text:
                    address = next(found[0] for line in process.stderr if (found := re.search(r"http://[\w.:/]+", line.decode())))
                    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
                    assert httpx2.post(address, content=HELLO, headers=headers, trust_env=False).status_code == 200
                else:
                    process.stdin.write(HELLO)
                    process.stdin.flush()
                    assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "florence2"
            finally:
                os.killpg(process.pid, signal.SIGTERM)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log: Path, ready_path: str) -> None:
        deadline = time.monotonic() + RUN_S
        while time.monotonic() < deadline:
            found = re.search(r"https?://127\.0\.0\.1:[1-9]\d*", log.read_text())
            with suppress(httpx2.TransportError):  # the log names the address a moment before the server listens
                if found is not None and httpx2.get(f"{found[0]}{ready_path}", trust_env=False, verify=False).status_code == 200:
                    return
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        raise AssertionError(f"not ready within {RUN_S} s:\n{log.read_text()}")


@pytest.fixture
def shell(tmp_path: Path, photo: Path, tiny: Path, server: str, picture_host: str, hub: str) -> Shell:
    return Shell(tmp_path / "work", photo, tiny, server, picture_host, hub)


def why_not_run(command: Command) -> str | None:
    if command.page in PAGES_NOT_RUN:
        return PAGES_NOT_RUN[command.page]
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, command.text)), None)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", pages_with_commands(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_run(page: Path, shell: Shell) -> None:
    for command in commands(page):
        if why_not_run(command) is not None:
            continue
        words = command.words
        assert words[0] in PLAIN, f"{command}\nteach this test to run it, or list it in NOT_RUN with the reason"
        if words[0] in ("export", "cd"):
            shell.exported += shell.prepared(command.text) + "\n"
        elif words[:2] == ["florence2", "serve"] and "--check" not in words:
            shell.serve(command.text)
        elif words[:2] == ["florence2", "mcp"]:
            shell.offer(command.text)
        elif words[:2] == ["florence2", "view"]:
            shell.view(command.text, words[2])
        else:
            ran = shell.run(command.text)
            assert ran.returncode == 0, f"{command}\n{ran.stdout[:2000]}{ran.stderr[-2000:]}"
            assert ran.stdout or words[0] not in ("curl", "florence2"), f"{command}\nsays nothing"
            if "/infer/lmm" in command.text and words[0] == "curl" and "jq" not in command.text:
                assert "response" in json.loads(answer_in(ran.stdout, command.text)), f"{command}\n{ran.stdout[:2000]}"


def answer_in(output: str, command: str) -> str:
    """The answer in what curl has written: all of it, or the last of its events."""
    if "stream=true" not in command:
        return output
    assert output.startswith("event: text\ndata: {"), output[:2000]
    return output.rpartition("event: done\ndata: ")[2]


def test_every_reason_is_still_needed() -> None:
    found = [command for page in PAGES for command in commands(page)]
    for pattern in NOT_RUN:
        assert any(re.search(pattern, command.text) for command in found) or any(
            re.search(pattern, code) for page in PAGES for code in mentioned(page)
        ), pattern
    assert {command.page for command in found} >= set(PAGES_NOT_RUN)


def test_commands_in_sentences_have_the_options_they_name() -> None:
    programs = commands_of()
    groups = {name.split()[0] for name in programs if " " in name}
    for page in PAGES:
        for code in mentioned(page):
            words = code.split()
            if words[0] != "florence2" or len(words) == 1 or words[1].startswith(("-", "…")) or words[1:] in [[name] for name in groups]:
                continue
            name = " ".join(words[1:3]) if words[1] in groups else words[1]
            assert name in programs, f"{page.name}: {code}"
            known = {option for parameter in programs[name].params for option in parameter.opts}
            named = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
            assert named <= {*known, "--help"}, f"{page.name}: {code}"


class TestFinding:
    """Blocks of every kind, so that no command of a new page is passed over."""

    def found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> list[str]:
        monkeypatch.setattr("tests.docs.commands.ROOT", tmp_path)
        (tmp_path / "page.md").write_text(text)
        return [command.text for command in commands(tmp_path / "page.md")]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("```sh\n# a remark\nflorence2 models\n\ncurl a \\\n  -d b\n```\n", ["florence2 models", "curl a \\\n  -d b"]),
            ("```bash\ncurl -d '{\n \"a\": 1}' b\n```\n", ["curl -d '{\n \"a\": 1}' b"]),
            ("```console\n$ curl a -d '{\n  }'\n{\"b\": 1}\n$ jq c\n```\n", ["curl a -d '{\n  }'", "jq c"]),
            ("```console\n$ cat > a <<EOF\n> b\n> EOF\nc\n```\n", ["cat > a <<EOF\nb\nEOF"]),
            ("```\nflorence2 serve\ncurl x\n```\n", ["florence2 serve", "curl x"]),
            ("```\nsrc/\n  a.py\n```\n", []),
            ("1. Say\n   ```sh\n   florence2 models\n   ```\n", ["florence2 models"]),
            ("<!-- generated: cli -->\n```\nflorence2 infer IMAGE...\n```\n<!-- end generated -->\n", []),
            ("```python\nflorence2.load()\n```\n", []),
        ],
    )
    def test_blocks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: list[str]) -> None:
        assert self.found(tmp_path, monkeypatch, text) == expected

    def test_variables_in_front_are_no_program(self) -> None:
        assert Command("p", 1, "A='b c' D=e florence2 serve --x").words == ["florence2", "serve", "--x"]
        assert Command("p", 1, "(printf a; cat b) | curl c").words[0] == "printf"


@pytest.mark.parametrize(
    "command",
    [
        "curl http://localhost:9001/infer/lmm/florence-2-base -F image=@dog.jpeg -F 'prompts=<OD>'",
        'curl http://localhost:9001/infer/lmm/florence-2-base -d "{\\"image\\": \\"$(base64 -w0 examples/scene.png)\\"}"',
        "curl http://localhost:9001/infer/lmm/absent -F image=@dog.jpeg --form-string 'prompt=<OD>'",
    ],
)
def test_what_fails_is_seen(shell: Shell, command: str) -> None:
    """The faults that these pages once had: curl reads ``<`` as a file, and a shell's arguments are bounded."""
    assert shell.run(command).returncode != 0
