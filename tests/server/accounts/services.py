"""A PostgreSQL and a Redis of the tests' own, in temporary folders, on free ports of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.server.accounts.install import postgresql, redis

START_S = 30.0


class PostgreSQL:
    """A server; each database of it is a test's own."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder, self.port = programs, folder, free_port()
        self._user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        self._num_databases = 0

    def set_up(self) -> None:
        if self._user:
            shutil.chown(self._folder, "postgres", "postgres")
        self._run("initdb", "--no-sync", "--auth=trust", "--username=florence2", "--encoding=UTF8", "--pgdata", self._data)

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self._folder} -c fsync=off -c full_page_writes=off -c synchronous_commit=off"
        self._run("pg_ctl", "--wait", "--pgdata", self._data, "--log", str(self._folder / "log"), "--options", options, "start")

    def stop(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "--wait", "--mode=fast", "--pgdata", self._data, "stop")

    def new_database(self) -> str:
        """The URL of an empty one."""
        self._num_databases += 1
        name = f"test{self._num_databases}"
        self._run("createdb", "--host=127.0.0.1", f"--port={self.port}", "--username=florence2", name)
        return f"postgresql://florence2@127.0.0.1:{self.port}/{name}"

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        # Files, not pipes: what pg_ctl starts keeps them open.
        with open(os.devnull, "w") as nothing:
            command = [str(self._programs / program), *arguments]
            subprocess.run(command, check=True, cwd=self._folder, stdout=nothing, stderr=nothing, timeout=START_S, **self._user)


@contextmanager
def running_postgresql() -> Iterator[PostgreSQL | None]:
    """A server; None: there is none on this machine."""
    programs = postgresql()
    if programs is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="florence2-postgresql-") as folder:
        server = PostgreSQL(programs, Path(folder))
        server.set_up()
        server.start()
        try:
            yield server
        finally:
            server.stop()


class Redis:
    """A server that keeps nothing."""

    def __init__(self, program: str, folder: str) -> None:
        self._program, self._folder, self.port = program, folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self._folder]
        self._process = subprocess.Popen([self._program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return
            time.sleep(0.02)
        raise AssertionError("Redis did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def running_redis() -> Iterator[Redis | None]:
    """A server; None: there is none on this machine."""
    program = redis()
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="florence2-redis-") as folder:
        server = Redis(program, folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]
