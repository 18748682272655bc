"""``florence2 mcp`` as a process: over standard input and output, over HTTP, and how it ends."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters

from florence2.cli import main
from florence2.mcp import stdio
from tests.docs.markdown import ROOT
from tests.mcp.conftest import words_of

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "florence2", "mcp", "--model", "florence-2-demo", "--device", "cpu", "--allow", str(ROOT / "examples")]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
PATIENCE_S = 60.0
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


@contextmanager
def process(*flags: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen[bytes]([*COMMAND, *flags], env=ENVIRONMENT, cwd=ROOT, **pipes) as started:
        try:
            yield started
        finally:
            started.kill()


def greeted(server: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The answer to the first message."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(HELLO).encode() + b"\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


def test_the_official_client_over_standard_input_and_output() -> None:
    """By the handshake of older hosts; the newer one is that of the page's example, which runs as well."""
    parameters = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=ENVIRONMENT, cwd=ROOT)

    async def talk() -> Any:
        async with Client(parameters, mode="legacy") as client:
            await client.list_tools()
            calls = [("detect", {"image": "scene.png", "draw": True}), ("read_text", {"image": str(ROOT / "examples" / "scene.png")})]
            return await asyncio.gather(*(client.call_tool(tool, arguments) for tool, arguments in calls))

    found, read = asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))
    assert {one["label"] for one in found.structured_content["objects"]} == {"white circle", "yellow star", "purple circle"}
    assert [block.type for block in found.content] == ["text", "image"]
    assert words_of(read) == "FISH"


@pytest.mark.parametrize("ending", ["input", "SIGTERM", "SIGINT", "output"])
def test_it_ends_in_order_whatever_ends_it(ending: str) -> None:
    """Right after the first answer, while the model is being loaded, and without a word."""
    with process() as server:
        assert greeted(server)["result"]["serverInfo"]["name"] == "florence2"
        assert server.stdin is not None
        assert server.stdout is not None
        began = time.monotonic()
        if ending == "input":
            server.stdin.close()
        elif ending == "output":
            server.stdout.close()
            server.stdin.write(b'{"jsonrpc": "2.0", "id": 2, "method": "ping"}\n' * 2)
            server.stdin.flush()
        else:
            server.send_signal(getattr(signal, ending))
        assert server.wait(PATIENCE_S) == 0
        assert time.monotonic() - began < 10
        assert server.stderr is not None
        assert server.stderr.read() == b""


def test_standard_output_belongs_to_the_protocol() -> None:
    """What is no message is not answered with anything but messages; notices go to standard error."""
    with process("--verbose") as server:
        assert server.stdin is not None
        server.stdin.write(b"no message\n" + b"\xff\xfe\n" + b"[" * 5000 + b"\n\n")
        lines = [greeted(server)]
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "caption", "arguments": {"image": "scene.png"}}}
        for message in ({"jsonrpc": "2.0", "method": "notifications/initialized"}, call):
            server.stdin.write(json.dumps(message).encode() + b"\n")
        server.stdin.flush()
        assert server.stdout is not None
        while lines[-1].get("id") != 2:
            lines.append(json.loads(server.stdout.readline()))
        server.stdin.close()
        assert [json.loads(line) for line in server.stdout.read().splitlines()] == []
        assert server.wait(PATIENCE_S) == 0
        assert all(line["jsonrpc"] == "2.0" for line in lines)
        assert lines[-1]["result"]["structuredContent"]["text"]
        assert server.stderr is not None
        assert b"florence-2-demo" in server.stderr.read()


@pytest.mark.parametrize("is_id_first", [True, False])
def test_a_line_that_is_too_long_is_answered(is_id_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts write the id before the image or behind it."""
    monkeypatch.setattr(stdio, "MAX_LINE_BYTES", 2**12)
    monkeypatch.setattr(stdio, "MAX_END_BYTES", 2**8)
    call = {"id": 2, "image": "A" * 2**14} if is_id_first else {"image": "A" * 2**14, "id": 2}

    async def read() -> list[str]:
        return [line async for line in stdio.Lines(io.BytesIO(json.dumps(call).encode() + b"\nnext\n"))]

    cut, following = asyncio.run(read())
    assert following == "next\n"
    assert json.loads(cut)["id"] == 2
    assert 2**12 < len(cut) < 2**13


def test_over_http_on_this_machine_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with process("--http", "--port", "0", stdin=subprocess.DEVNULL) as server:
        assert server.stderr is not None
        address = server.stderr.readline().decode().split(" at ")[1].split()[0]
        assert address.startswith("http://127.0.0.1:")

        async def talk() -> Any:
            async with Client(address) as client:
                return await client.call_tool("caption", {"image": "scene.png"})

        answer = asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))
        assert answer.structured_content["text"]
        headers = {"Accept": "application/json, text/event-stream"}
        for header, value, status in (("Host", "evil.example:80", 421), ("Origin", "https://evil.example", 403)):
            refused = httpx2.post(address, json=HELLO, headers={**headers, header: value}, trust_env=False)
            assert refused.status_code == status
        assert httpx2.post(address, json=HELLO, headers=headers, trust_env=False).status_code == 200
        port = address.split(":")[2].split("/")[0]
        with pytest.raises(SystemExit) as left:
            main(["mcp", "--http", "--port", port])
        told = f"florence2: can't listen on 127.0.0.1:{port}: Address already in use; take another --port\n"
        assert (left.value.code, capsys.readouterr().err) == (2, told)
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0


def test_wrong_calls_of_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    for words, told in (
        (["--port", "9002"], "florence2: --port goes with --http\n"),
        (
            ["--api-url", "http://localhost:9001"],
            "florence2: --api-url goes with --model, one of the server's models, and without --adapter, --device and --precision\n",
        ),
        (["--allow", str(tmp_path / "absent")], f"florence2: --allow takes a folder that is there, got '{tmp_path}/absent'\n"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["mcp", *words])
        out, err = capsys.readouterr()
        assert (left.value.code, out, err) == (2, "", told)


def test_without_the_package_the_command_names_the_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "mcp" or name.startswith(("mcp.", "florence2.mcp"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(SystemExit) as left:
        main(["mcp", "-m", "florence-2-demo"])
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (1, "")
    assert err == "florence2: florence2 mcp needs the extra 'mcp' (mcp is missing): pip install 'florence2-engine[mcp]'\n"
