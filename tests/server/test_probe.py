"""The health check of images: it asks where the server listens, and its exit code says what came."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from florence2.server import probe


class Answering(BaseHTTPRequestHandler):
    """200 for ``/healthz`` alone."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()
        self.wfile.write(b'{"reason": "loading"}')

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv("FLORENCE2_HOST", "0.0.0.0")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_server_that_is_well_is_zero(port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FLORENCE2_PORT", str(port))
    assert probe.main([]) == probe.main(["/healthz"]) == 0
    assert capsys.readouterr() == ("", "")


def test_one_that_is_not_ready_is_one_and_says_why(port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FLORENCE2_PORT", str(port))
    assert probe.main(["/readiness"]) == 1
    assert capsys.readouterr().err == f'127.0.0.1:{port}/readiness answers 503: {{"reason": "loading"}}\n'


def test_the_port_of_a_file_of_settings_is_asked(port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text(f"port = {port}\n")
    monkeypatch.setenv("FLORENCE2_CONFIG", str(config))
    monkeypatch.setenv("FLORENCE2_PROFILE", "dedicated")  # which a server without keys can't have: the check knows of no flags
    assert probe.main([]) == 0


@pytest.mark.parametrize("value", ["free", "http", "99999", ""])
def test_where_nothing_answers(value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if value == "free":
        with socket.create_server(("127.0.0.1", 0)) as taken:
            value = str(taken.getsockname()[1])
    monkeypatch.setenv("FLORENCE2_PORT", value or "9")
    assert probe.main([]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FLORENCE2_CONFIG", "/nowhere/server.toml")
    assert probe.main([]) == 1
    assert "/nowhere/server.toml" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["healthz"], ["/healthz", "/readiness"]])
def test_what_is_no_path_is_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(words) == 2
    assert "expected a path" in capsys.readouterr().err
