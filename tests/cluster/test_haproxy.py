"""What a run that was killed leaves behind is ended; what belongs to one that goes on, or to others, is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from florence2.cluster import haproxy
from florence2.file_locks import held

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process was started with")

Start = Callable[[Path, str], "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy, "_place", lambda: str(tmp_path))


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program that waits, under a name, with a file of a folder on its command line."""
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: Path, name: str = "haproxy") -> subprocess.Popen[bytes]:
        file = folder / "haproxy.cfg"
        file.touch()
        program = shutil.which("tail")
        assert program is not None
        process = subprocess.Popen([name, "-f", str(file)], executable=program, stdout=subprocess.DEVNULL)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def left_behind(name: str) -> Path:
    """A folder as a killed run leaves it."""
    folder = Path(haproxy._place(), f"{haproxy.PREFIX}{name}")
    folder.mkdir()
    (folder / haproxy.LOCK).touch()
    os.utime(folder / haproxy.LOCK, (0, 0))
    return folder


def test_a_folder_goes_with_the_haproxy_that_uses_it(start: Start) -> None:
    with haproxy.folder_of_own() as folder:
        assert folder.stat().st_mode & 0o77 == 0
        process = start(folder, "haproxy")
    assert process.wait(5) == -15
    assert not folder.exists()


def test_its_path_is_short_wherever_temporary_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with haproxy.folder_of_own() as folder:
        assert len(str(folder)) < 25


def test_what_a_killed_run_has_left_is_ended(start: Start) -> None:
    folder = left_behind("killed")
    process, other = start(folder, "haproxy"), start(folder, "editor")
    assert haproxy.remove_left_behind() == [process.pid]
    assert process.wait(5) == -15
    assert other.poll() is None
    assert not folder.exists()


def test_a_run_that_goes_on_keeps_its_folder(start: Start) -> None:
    folder = left_behind("running")
    process = start(folder, "haproxy")
    with held(folder / haproxy.LOCK):
        assert haproxy.remove_left_behind() == []
    assert folder.exists()
    assert process.poll() is None


def test_a_folder_that_was_made_just_now_stays() -> None:
    folder = left_behind("young")
    os.utime(folder / haproxy.LOCK, (time.time(), time.time()))
    assert haproxy.remove_left_behind() == []
    assert folder.exists()


def test_a_program_whose_ray_has_ended_ends_at_once_and_takes_haproxy_along(start: Start) -> None:
    folder = left_behind("watched")
    process = start(folder, "haproxy")
    code = """
import sys, time
from pathlib import Path
from florence2.cluster import started
started._ended_processes = lambda: ["raylet"]
with started._watched(Path(sys.argv[1])):
    time.sleep(60)
"""
    ended = subprocess.run([sys.executable, "-c", code, str(folder)], stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert "Ray has ended (raylet)" in ended.stderr
    assert process.wait(5) == -15
    assert not folder.exists()
