"""Installs torch at the version of ``constraints.txt``, in the build that was asked for: ``python .ci/torch_build.py cpu|default``.

On Linux the usual index gives a build for NVIDIA GPUs, with 2.8 GiB of packages that a machine without one never uses. ``cpu`` takes
PyTorch's own index for processors there, if it answers at once; where it does not, and on other systems, what pip finds is taken.
``probe`` instead of a build exits with 0 if that index answers, ``version`` prints the version.
Runs in the environment that it changes, and knows nothing of the project but that line.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CHOICES = ("cpu", "default")
PROBE_S = 5.0
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
_PROBE = f"import urllib.request; urllib.request.urlopen('{CPU_INDEX}/torch/', timeout={PROBE_S}).read(1)"


def pinned_version() -> str:
    """The version of torch that the project is developed with."""
    found = re.search(r"^torch==(\S+)", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        sys.exit(f"{CONSTRAINTS} names no version of torch; make constraints writes it anew")
    return found[1]


def installed_version() -> str | None:
    """The version that is there, with the name of its build."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def answers() -> bool:
    """Whether PyTorch's index can be reached; a process of its own, because looking up a name can't be given a time limit."""
    try:
        return subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=2 * PROBE_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def pip_arguments(choice: str, platform: str, wanted: str, installed: str | None, is_reachable: bool) -> list[str] | None:
    """What pip has to install; None where the right build is there."""
    takes_cpu_index = choice == "cpu" and platform == "linux" and is_reachable
    has_version = installed is not None and installed.partition("+")[0] == wanted
    is_cpu = installed is not None and installed.endswith("+cpu")
    if has_version and (is_cpu if takes_cpu_index else choice == "cpu" or not is_cpu):
        return None
    # No dependencies from there: they come with the project's own, from pip's index and at the project's versions.
    source = ["--no-deps", "--index-url", CPU_INDEX] if takes_cpu_index else ["--constraint", str(CONSTRAINTS)]
    return [*(["--force-reinstall"] if has_version else []), *source, f"torch=={wanted}"]


def main(choice: str) -> None:
    """Install it."""
    if choice not in CHOICES:
        sys.exit(f"TORCH is cpu or default, not {choice!r}")
    wants_index = choice == "cpu" and sys.platform == "linux"
    is_reachable = wants_index and answers()
    if wants_index and not is_reachable:
        print(f"{CPU_INDEX} does not answer; pip looks for torch elsewhere, which may bring the build for GPUs (2.8 GiB)", file=sys.stderr)
    arguments = pip_arguments(choice, sys.platform, pinned_version(), installed_version(), is_reachable)
    if arguments is not None:
        ended = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *arguments], check=False)
        sys.exit(ended.returncode)


if __name__ == "__main__":
    if sys.argv[1] == "probe":
        sys.exit(0 if answers() else 1)
    if sys.argv[1] == "version":
        print(pinned_version())
        sys.exit(0)
    main(sys.argv[1])
