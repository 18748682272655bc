"""Files that lie in Xet, with the hub's own Xet library against a storage in a folder: what it brings, and that it is never missed.

A real server of Xet is not among these: its library is told to use a folder as the storage.
"""

from __future__ import annotations

import _thread
import http.server
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.checkpoints import write_checkpoint
from florence2.errors import DownloadError
from florence2.weights import hub as hub_module
from florence2.weights import resolve, xet
from tests.hub import Hub, running_hub

NAME, FILE = "owner/tiny", "model.safetensors"
library: Any = pytest.importorskip("hf_xet")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "served")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> Iterator[Hub]:
    with running_hub() as served:
        served.add(NAME, checkpoint)
        (tmp_path / "storage").mkdir()
        served.xet_storage = f"local://{tmp_path / 'storage'}"
        with library.XetSession().new_upload_commit(endpoint=served.xet_storage) as commit:
            stored = commit.start_upload_bytes((checkpoint / FILE).read_bytes(), name=FILE)
        served.xet[FILE] = stored.result().xet_info.hash
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_DISABLE_XET"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(hub_module, "RETRY_DELAY_S", 0.0)
        yield served


def plain(hub: Hub) -> list[str | None]:
    """The ranges that were asked for over plain HTTPS."""
    return [asked.range for asked in hub.asked if asked.path.startswith("/files/")]


def are_whole(checkpoint: Path) -> bool:
    return (resolve(NAME) / FILE).read_bytes() == (checkpoint / FILE).read_bytes()


def test_a_file_in_xet_comes_from_there(hub: Hub, checkpoint: Path) -> None:
    assert are_whole(checkpoint)
    assert plain(hub) == []
    hub.asked.clear()
    assert are_whole(checkpoint)
    assert hub.fetched() == []


def test_xet_goes_on_where_plain_https_broke_off(hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    hub.break_after[FILE] = 5000
    with pytest.raises(DownloadError, match="broke off"):
        resolve(NAME)
    (partial,) = Path(os.environ["HF_HOME"]).rglob("*.florence2-partial")
    assert partial.stat().st_size == 5000
    monkeypatch.delenv("HF_HUB_DISABLE_XET")
    hub.asked.clear()
    asked: list[int] = []
    real = xet._stream
    monkeypatch.setattr(xet, "_stream", lambda *arguments: (asked.append(arguments[2]), real(*arguments))[1])
    assert are_whole(checkpoint)
    assert (asked, plain(hub)) == ([5000], [])


def test_plain_https_goes_on_where_xet_broke_off(hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = xet._stream

    def broken(*arguments: Any) -> Iterator[bytes]:
        yield b"".join(bytes(chunk) for chunk in real(*arguments))[:7000]
        raise ConnectionError("gone")

    monkeypatch.setattr(xet, "_stream", broken)
    assert are_whole(checkpoint)
    assert plain(hub) == ["bytes=7000-"]


def test_a_stream_that_ends_early_is_noticed(hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xet, "_stream", lambda *arguments: iter([(checkpoint / FILE).read_bytes()[:100]]))
    assert are_whole(checkpoint)
    assert plain(hub) == ["bytes=100-"]


def test_an_interrupted_download_keeps_what_came(hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(file: Any, size_bytes: int, start: int, left: threading.Event) -> Iterator[bytes]:
        yield (checkpoint / FILE).read_bytes()[:9000]
        while not any(path.stat().st_size for path in Path(os.environ["HF_HOME"]).rglob("*.florence2-partial")):
            time.sleep(0.01)
        _thread.interrupt_main()  # Ctrl-C, while the library is silent
        left.wait(30)

    with monkeypatch.context() as patch:
        patch.setattr(xet, "_stream", interrupted)
        with pytest.raises(KeyboardInterrupt):
            resolve(NAME)
    (partial,) = Path(os.environ["HF_HOME"]).rglob("*.florence2-partial")
    assert partial.stat().st_size == 9000
    assert are_whole(checkpoint)
    assert plain(hub) == []


def test_what_xet_brings_damaged_is_thrown_away(hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (checkpoint / FILE).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(xet, "_stream", lambda *arguments: iter([data[:-1] + bytes([data[-1] ^ 1])]))
        with pytest.raises(DownloadError, match="arrived damaged and was thrown away"):
            resolve(NAME)
    assert not list(Path(os.environ["HF_HOME"]).rglob("*.florence2-partial"))
    assert are_whole(checkpoint)


class Refusing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["no server", "refuses", "unknown file", "no token", "no address"])
def test_a_storage_that_is_not_to_be_had_is_not_missed(
    hub: Hub, checkpoint: Path, refusing: str, fault: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "unknown file":
        hub.xet[FILE] = "0" * 63 + "1"
    elif fault == "no token":
        monkeypatch.setattr("tests.hub._Handler._send_xet_token", lambda handler: handler._send(404))
    else:
        hub.xet_storage = {"no server": "http://127.0.0.1:9", "refuses": refusing, "no address": "nonsense"}[fault]
    began = time.monotonic()
    with caplog.at_level(logging.INFO, logger="florence2"):
        assert are_whole(checkpoint)
    assert time.monotonic() - began < 20
    assert plain(hub) == [None]
    assert "Xet brought 0.0 MB" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING and record.name.startswith("florence2")]


@pytest.mark.slow
def test_a_silent_storage_is_left(hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xet, "MAX_SILENCE_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub.xet_storage = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert are_whole(checkpoint)
    assert time.monotonic() - began < 10
    assert plain(hub) == [None]


@pytest.mark.parametrize("how", ["missing", "HF_HUB_DISABLE_XET"])
def test_without_xet(hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "missing":
        monkeypatch.setitem(sys.modules, "hf_xet", None)
    else:
        monkeypatch.setenv(how, "yes")
    assert are_whole(checkpoint)
    assert plain(hub) == [None]


def test_every_setting_is_one_that_the_library_knows() -> None:
    known = set(library.XetConfig().keys())
    assert set(xet._SETTINGS) <= known
