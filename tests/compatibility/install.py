"""The environment of the real client: ``python -m tests.compatibility.install`` makes it, or leaves it if it is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
FOLDER = Path(__file__).parents[2] / ".venv-sdk"
STAMP = FOLDER / "installed.txt"
# What pip prints when nobody answers, as opposed to an answer that is an error.
_UNREACHABLE = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "NameResolutionError",
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "Cannot connect to proxy",
    "Read timed out",
)


class RegistryUnreachable(Exception):
    """The package registry did not answer."""


def python() -> Path:
    """The interpreter of the environment, which is made if it is not there or not of this state."""
    interpreter = FOLDER / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    wanted = REQUIREMENTS.read_text()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return interpreter
    STAMP.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries", "1", "--timeout", "20"]
    ran = subprocess.run([*pip, "install", "--requirement", str(REQUIREMENTS)], capture_output=True, text=True, check=False)
    if ran.returncode and any(sign in ran.stdout + ran.stderr for sign in _UNREACHABLE):
        raise RegistryUnreachable(f"the package registry can't be reached, so that {REQUIREMENTS.name} is not installed")
    if ran.returncode:
        raise RuntimeError(f"pip failed:\n{ran.stdout}{ran.stderr}")
    STAMP.write_text(wanted)
    return interpreter


if __name__ == "__main__":
    try:
        python()
    except RegistryUnreachable as unreachable:
        print(f"{unreachable}; tests that need it will be skipped", file=sys.stderr)
