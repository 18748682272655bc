"""Other systems than the one that the tests run on, imitated: modules and functions that Windows and macOS lack, limits that they refuse.

What this shows is that the package's own code asks for nothing that is not there. It is no run on those systems.
"""

from __future__ import annotations

import ast
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fixtures.checkpoints import TINY
from florence2 import process_limits
from florence2.model import cache
from florence2.server.inference import decoder_process
from tests.docs.markdown import ROOT

SOURCES = sorted((ROOT / "src").rglob("*.py"))
# Modules of POSIX alone, and one that is installed on POSIX alone.
POSIX = (
    "crypt",
    "curses",
    "fcntl",
    "grp",
    "nis",
    "posix",
    "pty",
    "pwd",
    "readline",
    "resource",
    "spwd",
    "syslog",
    "termios",
    "tty",
    "uvloop",
)
LACKING = {
    "win32": "fork register_at_fork getuid geteuid getgid getpgid killpg setsid sched_getaffinity sysconf getloadavg uname memfd_create "
    "O_NOFOLLOW O_NONBLOCK O_CLOEXEC MFD_CLOEXEC chown fchmod mkfifo posix_fadvise pread",
    "darwin": "sched_getaffinity sched_setaffinity memfd_create MFD_CLOEXEC posix_fadvise",
    "linux": "memfd_create MFD_CLOEXEC",  # a Python built for an old C library
}
# Libraries are loaded before: it is not they that are looked at, and here they are those of this system.
SCRIPT = """
import asyncio, importlib, multiprocessing, os, signal, subprocess, sys, tempfile
from pathlib import Path
for name in ("torch", "PIL.Image", "rich.progress", "typer", "uvicorn", "uvicorn.protocols.http.h11_impl", "fastapi.testclient",
             "huggingface_hub", "tokenizers", "safetensors.torch", "pydantic_settings", "prometheus_client", "httpx2",
             "anyio._backends._asyncio", "mcp.server.stdio", "opentelemetry.exporter.otlp.proto.http.trace_exporter",
             "sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql", "alembic.command", "limits.storage"):
    importlib.import_module(name)
modules, lacking, system = sys.argv[1].split(","), sys.argv[2].split(), sys.argv[3]
sys.modules |= dict.fromkeys(modules)
for name in lacking:
    if hasattr(os, name):
        delattr(os, name)
if system == "win32":
    for name in ("SIGXCPU", "SIGKILL", "SIGHUP", "SIGPIPE", "SIGUSR1", "SIGALRM"):
        delattr(signal, name)
    import mmap
    for name in [name for name in dir(mmap) if name.startswith(("MAP_", "MADV_"))]:
        delattr(mmap, name)
sys.platform = system
root = Path(sys.argv[4])
for path in sorted(root.rglob("*.py")):
    # What Alembic runs is imported by nobody, and Ray's packages are another for each system.
    if path.stem != "__main__" and not {"migrations", "cluster"} & set(path.parts):
        importlib.import_module(".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__"))
import florence2
from florence2.cores import busy_seconds, usable_cores
assert usable_cores() >= 1
assert system == "linux" or busy_seconds() is None
with florence2.load("florence-2-demo", precision="fp32") as engine:
    print(engine.run(sys.argv[5], "<OCR>").text)
from florence2.model.cpu.kernels import loaded
print("routines" if loaded() else "PyTorch alone")
"""


def run_script(system: str, *, has_posix: bool) -> list[str]:
    modules = ",".join(name for name in POSIX if name != "posix") if not has_posix else "uvloop"
    arguments = [modules, LACKING[system], system, str(ROOT / "src" / "florence2"), str(ROOT / "examples" / "scene.png")]
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=200, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(("system", "has_posix"), [("win32", False), ("darwin", True), ("linux", True), ("linux", False)])
def test_every_module_imports_and_the_demo_answers(system: str, has_posix: bool) -> None:
    answer, computed_by = run_script(system, has_posix=has_posix)
    assert answer == "FISH"
    assert computed_by == ("PyTorch alone" if system != "linux" else computed_by)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_no_module_of_one_system_is_imported_at_the_top(source: Path) -> None:
    """Within a function they are, where their absence is seen to."""
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in names} & set(POSIX)


class Resource:
    """The module of that name, of a system with limits of its own."""

    RLIM_INFINITY = -1
    RLIMIT_AS, RLIMIT_CORE, RLIMIT_CPU = "as", "core", "cpu"

    def __init__(self, hard: int, *, refuses: tuple[str, ...] = ()) -> None:
        self.hard: dict[str, int] = dict.fromkeys(("as", "core", "cpu"), hard)
        self.refuses = refuses
        self.limits: dict[str, tuple[int, int]] = {}

    def getrlimit(self, limit: str) -> tuple[int, int]:
        return self.limits.get(limit, (self.hard[limit], self.hard[limit]))

    def setrlimit(self, limit: str, values: tuple[int, int]) -> None:
        most, soft, hard = (2**63 if value == self.RLIM_INFINITY else value for value in (self.getrlimit(limit)[1], *values))
        if limit in self.refuses or soft > hard or hard > most:
            raise ValueError("current limit exceeds maximum limit")
        self.limits[limit] = values


@pytest.mark.parametrize(
    ("resource", "memory"),
    [
        (Resource(-1), 1000),
        (Resource(600), 600),  # whoever started the server allows less
        (Resource(-1, refuses=("as",)), None),  # macOS
    ],
)
def test_pictures_are_decoded_where_limits_are_refused_or_lower(
    monkeypatch: pytest.MonkeyPatch, resource: Resource, memory: int | None
) -> None:
    monkeypatch.setitem(sys.modules, "resource", resource)
    monkeypatch.setattr(process_limits.time, "process_time", lambda: 50.0)  # a long run of tests has used more than the second limit
    for _ in range(2):  # for each picture
        process_limits.limit_memory(1000)
        process_limits.limit_time(100)
    assert resource.limits.get("as") == (None if memory is None else (memory, memory))
    assert resource.limits["core"] == (0, 0)
    assert resource.limits["cpu"][0] == 151
    assert resource.limits["cpu"][1] == resource.hard["cpu"]


def test_systems_without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    process_limits.limit_memory(1000)
    process_limits.limit_time(1)
    assert process_limits.raise_file_limit() is None


def test_a_decoder_runs_under_a_lower_limit_of_its_starter() -> None:
    """A real one, whose starter allows less memory and time than it would set."""
    limits = "import resource as r, os, sys; r.setrlimit(r.RLIMIT_AS, (2**31, 2**31)); r.setrlimit(r.RLIMIT_CPU, (20, 20))"
    start = f"{limits}; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    decoder = ["-m", decoder_process.__name__, str(2**33), "60", "1000000"]
    ran = subprocess.run([sys.executable, "-c", start, *decoder], input=b"", capture_output=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_memory_that_is_vouched_for_beforehand_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large models know 4,096 positions: 19 GB of cache, which Windows would have to promise at once."""
    large = type(TINY.text)(**{**vars(TINY.text), "max_position_embeddings": 4096})
    assert cache.usable_positions(large, torch.device("cpu")) == 4096
    monkeypatch.delattr(mmap, "MAP_PRIVATE")
    assert cache.usable_positions(large, torch.device("cpu")) == cache.DEVICE_POSITIONS


# PyTorch loads dill where it is installed, which here a package of the tests brings, and dill wants a folder for temporary files.
READ_ONLY = """
import sys, tempfile
sys.modules["dill"] = None
def refuse(): raise FileNotFoundError(2, "No usable temporary directory found")
tempfile._get_default_tempdir = refuse
import florence2
with florence2.load("florence-2-demo", precision="fp32") as engine:
    print(engine.run(sys.argv[1], "<OCR>").text)
print(sorted({"torch._dynamo", "torch._inductor"} & set(sys.modules)))
"""


@pytest.mark.slow
def test_a_container_without_a_folder_that_can_be_written() -> None:
    """No home, no cache, no temporary files. PyTorch's compiler, which would want one, is not loaded: it takes seconds and 70 MB."""
    environment = {**os.environ, "HOME": "/nonexistent", "XDG_CACHE_HOME": "/dev/null/cache", "HF_HOME": "/dev/null/hub"}
    command = [sys.executable, "-W", "error", "-c", READ_ONLY, str(ROOT / "examples" / "scene.png")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.splitlines() == ["FISH", "[]"]
