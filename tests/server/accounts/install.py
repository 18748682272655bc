"""PostgreSQL and Redis for the tests of keys: ``python -m tests.server.accounts.install`` installs Debian's packages where it may."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ADVICE = "so keys are not tested with it; on Debian: apt-get install postgresql redis-server"
_APT = ("apt-get", "--quiet", "--option", "Acquire::Retries=1", "--option", "Acquire::http::Timeout=30")


def postgresql() -> Path | None:
    """The folder of PostgreSQL's programs; None: they are not there."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: int(path.parent.name))
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).parent


def redis() -> str | None:
    """The path of the server; None: there is none."""
    return shutil.which("redis-server")


def install() -> None:
    """Install what is missing, if this user may. Debian starts neither: what the tests need they start themselves."""
    wanted = [name for name, found in (("postgresql", postgresql()), ("redis-server", redis())) if found is None]
    if not wanted or shutil.which("apt-get") is None or os.geteuid() != 0:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for arguments in (("update",), ("install", "--yes", "--no-install-recommends", *wanted)):
        ran = subprocess.run([*_APT, *arguments], env=environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            print(f"apt-get {arguments[0]} failed: {ran.stderr.strip()[-500:]}", file=sys.stderr)


if __name__ == "__main__":
    install()
    for name, found in (("PostgreSQL", postgresql()), ("Redis", redis())):
        if found is None:
            print(f"no {name} is found, {ADVICE}; these tests will be skipped", file=sys.stderr)
