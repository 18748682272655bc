"""A real server process with a tiny checkpoint, for tests that need sockets and signals.

``with running_server() as url`` starts one on a free port and stops it at the end. Settings go by keyword, as in
``florence2.server.settings``; the known aliases answer with a tiny random model, nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx2

from fixtures.checkpoints import write_checkpoint

ALIASES = ("florence-2-demo", "florence-2-base", "florence-2-large")
START_S = 120.0
STOP_S = 30.0


class Server:
    """A server process.

    Attributes:
        url: where it listens.
        process: the process itself.
        log: what it has written so far.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        if process.stderr is not None:
            self._reader.start()

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            self.lines.extend(stream)

    def wait_for(self, pattern: str, timeout_s: float = START_S) -> re.Match[str]:
        """Wait until the log holds ``pattern``; fail with the log when the process ends or the time is up."""
        deadline = time.monotonic() + timeout_s
        while (match := re.search(pattern, self.log)) is None:
            if self.process.poll() is not None:
                self._end_reading()
                if (match := re.search(pattern, self.log)) is not None:
                    return match
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} within {timeout_s} s:\n{self.log}")
            time.sleep(0.02)
        return match

    def wait_until_it_listens(self, timeout_s: float = START_S) -> None:
        deadline = time.monotonic() + timeout_s
        address = httpx2.URL(self.url)
        while True:
            with suppress(OSError), socket.create_connection((address.host, address.port or 80), timeout=1):
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("the server does not listen")
            time.sleep(0.05)

    def wait_until_ready(self, timeout_s: float = START_S) -> None:
        deadline = time.monotonic() + timeout_s
        while asked(f"{self.url}/readiness").status_code != 200:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not become ready:\n{self.log}")
            time.sleep(0.05)

    def stop(self) -> int:
        """End it, politely first; the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended, not for ever; the exit code."""
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait(STOP_S)
        self._end_reading()
        return code

    def _end_reading(self) -> None:
        if self._reader.ident is not None:
            self._reader.join(5)


@lru_cache(maxsize=1)
def _client() -> httpx2.Client:
    return httpx2.Client(verify=False)


def asked(url: str) -> httpx2.Response:
    """The answer to a GET, for loops that wait: ``httpx2.get`` reads the system's certificates each time, which keeps a processor busy."""
    return _client().get(url)


@lru_cache(maxsize=1)
def tiny_checkpoint() -> Path:
    """A tiny random checkpoint, written once for the test run."""
    keeper = tempfile.TemporaryDirectory(prefix="florence2-tiny-")
    _kept.append(keeper)
    return write_checkpoint(Path(keeper.name) / "tiny", generation={"num_beams": 1, "max_new_tokens": 8})


_kept: list[tempfile.TemporaryDirectory[str]] = []


def start_server(
    *,
    wait_until_ready: bool = True,
    prelude: str = "",
    engine_prelude: str = "",
    environment: Mapping[str, str] | None = None,
    stderr: int = subprocess.PIPE,
    **settings: Any,
) -> Server:
    """Start a process; the caller stops it.

    Args:
        wait_until_ready: come back only when the models are loaded.
        prelude: Python that runs in the process first, to put something that hangs where it must not.
        engine_prelude: the same for the process that the models run in.
        environment: variables on top of those of this process.
        stderr: where its log goes. Not a pipe that is read here: ``port`` must be given.
        settings: as in ``florence2.server.settings``.
    """
    tiny = str(tiny_checkpoint())
    values = {"port": 0, "models": dict.fromkeys(ALIASES, tiny), "warm_up": False, **settings}
    names = {name: value for name, value in os.environ.items() if not name.startswith("FLORENCE2_")}
    names |= {f"FLORENCE2_{name.upper()}": _written(value) for name, value in values.items()}
    names |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **(environment or {})}
    if engine_prelude:
        names["PYTHONPATH"] = os.pathsep.join([first_in_engine(engine_prelude), *sys.path])
    code = f"{prelude}\nfrom florence2.cli.app import main\nmain(['serve'])"
    command = [sys.executable, *(("-c", code) if prelude else ("-m", "florence2.server"))]
    server = Server(subprocess.Popen(command, env=names, stderr=stderr, stdout=subprocess.DEVNULL, text=True))
    try:
        if stderr == subprocess.PIPE:
            server.url = server.wait_for(r"running on (https?://[\w.:\[\]]+)").group(1)
        else:
            server.url = f"http://127.0.0.1:{values['port']}"
            server.wait_until_it_listens()
        if wait_until_ready:
            server.wait_until_ready()
    except BaseException:
        server.process.kill()
        server.process.wait()
        raise
    return server


def first_in_engine(prelude: str) -> str:
    """A folder on whose account the interpreter of the engine's process runs a prelude before all else."""
    keeper = tempfile.TemporaryDirectory(prefix="florence2-prelude-")
    _kept.append(keeper)
    lines = ["import sys", 'if "florence2.engine_process.child" in sys.orig_argv:', *(f"    {line}" for line in prelude.splitlines())]
    Path(keeper.name, "sitecustomize.py").write_text("\n".join(lines) + "\n")
    return keeper.name


@contextmanager
def running_server(**settings: Any) -> Iterator[str]:
    """The address of a server that is ready and is stopped at the end."""
    server = start_server(**settings)
    try:
        yield server.url
    finally:
        server.stop()


def _written(value: Any) -> str:
    """A setting as the environment has it."""
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
