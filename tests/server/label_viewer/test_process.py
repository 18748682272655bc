"""``florence2 view`` as a process: the address, the browser that it opens, how it ends, and what it refuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from florence2.listening import listen
from florence2.server.label_viewer import process
from florence2.server.label_viewer.process import DEFAULT_PORT, listen_at
from tests.labelling.journals import answer, boxes, record, write_journal

OPTIONS = {"tasks": ["<OD>"]}
PATIENCE_S = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_journal(tmp_path / "out", OPTIONS, record("a.jpg", answer("<OD>", boxes(("car", (10, 10, 50, 60), 0.9)))))


@contextmanager
def viewing(*words: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """The command, stopped at the end."""
    command = [sys.executable, "-m", "florence2", "view", *words]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    ) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_ends_without_a_word(folder: Path, ending: signal.Signals) -> None:
    with viewing(str(folder), "--port", "0", "--no-browser", "--quiet") as running:
        assert running.stderr is not None
        found = re.fullmatch(r"florence2: out at (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends\)\n", running.stderr.readline())
        assert found
        with httpx2.Client(base_url=found[1]) as client:
            assert client.get("api/summary").json()["num_labelled"] == 1
            running.send_signal(ending)
            assert running.wait(PATIENCE_S) == 0
        assert running.stderr.read() == ""


@pytest.mark.slow
def test_it_opens_the_browser_and_needs_no_torch(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "browser").write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    (tmp_path / "browser").chmod(0o755)
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not needed')")
    environment = {"BROWSER": f"{tmp_path}/browser %s", "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    with viewing(str(folder), "-P", "0", environment=environment) as running:
        assert running.stderr is not None
        address = running.stderr.readline().split(" at ")[1].split()[0]
        for _ in range(200):
            if (tmp_path / "opened").exists() and (tmp_path / "opened").read_text():
                break
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(0.05)
        assert (tmp_path / "opened").read_text().strip() == address


@pytest.mark.slow
def test_a_folder_that_is_none_is_a_mistake_of_the_users(tmp_path: Path) -> None:
    with viewing(str(tmp_path), "--no-browser") as running:
        assert running.wait(PATIENCE_S) == 2
        assert running.stderr is not None
        assert "holds no label run: there is neither .florence2/journal.jsonl nor .florence2/parts in it" in running.stderr.read()


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Exception, match=rf"can't listen on 127\.0\.0\.1:{port}: .*; take another --port"):
            listen_at(port)
        monkeypatch.setattr(process, "DEFAULT_PORT", port)
        with listen_at(None) as free:
            assert free.getsockname()[1] not in (port, 0)
    assert DEFAULT_PORT == 9003
