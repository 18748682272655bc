"""What an environment has to hold, line by line as ``pyproject.toml`` says it, so that a resolver can be told to take the lowest of each.

Asked for by the wheel's name alone, these would be requirements of a requirement, and of those the newest are taken.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
TORCH_BUILD = ROOT / ".ci" / "torch_build.py"
KINDS = ("lowest", "pinned", "newest", "no-compiler", "readme")
# Of the development tools, those that the tests here import.
TEST_TOOLS = frozenset({"beartype", "hypothesis", "jaxtyping", "packaging", "pytest", "pytest-timeout"})


def declared() -> list[str]:
    """Requirements of the package, of all its extras, and of the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for name, lines in extras.items() if name != "dev" for line in lines)]
    tools = [line for line in extras["dev"] if Requirement(line).name in TEST_TOOLS]
    return [line for line in dict.fromkeys([*lines, *tools]) if Requirement(line).name != project["name"]]


def names() -> set[NormalizedName]:
    """The packages that are asked for by name."""
    return {canonicalize_name(Requirement(line).name) for line in declared()}


def requirements(torch: str | None = None) -> list[str]:
    """The lines; ``torch`` names a version of it."""
    return [f"torch=={torch}" if torch and Requirement(line).name == "torch" else line for line in declared()]


def constraints_of(kind: str) -> list[str]:
    """What uv is told so that it takes the versions of a kind."""
    if kind == "lowest":
        return ["--resolution", "lowest-direct", *torch_source(), *found_by_pip()]
    if kind == "newest":
        return ["--upgrade", *torch_source()]
    return ["--constraint", str(ROOT / "constraints.txt"), *torch_source(), *found_by_pip()]


def torch_instead(kind: str) -> str | None:
    """The version of torch that stands in for the lowest where only that one's build for GPUs is to be had, of 5 GB; else None.

    ``--torch`` with the lowest version takes it all the same; that was done for the results that are kept.
    """
    if kind != "lowest" or torch_source():
        return None
    version = subprocess.run([sys.executable, str(TORCH_BUILD), "version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"PyTorch's index for processors does not answer: torch is {version} here, and all else is the lowest", flush=True)
    return version


@functools.cache
def torch_source() -> list[str]:
    """PyTorch's index for processors, if it can be reached; elsewhere the build for GPUs comes, and works."""
    ended = subprocess.run([sys.executable, str(TORCH_BUILD), "probe"], check=False)
    return [] if ended.returncode else ["--torch-backend", "cpu"]


def found_by_pip() -> list[str]:
    """The folders in which pip finds wheels on this machine, for uv, which does not read pip's settings."""
    folders = os.environ.get("PIP_FIND_LINKS", "").split()
    return [word for folder in folders for word in ("--find-links", folder)]
