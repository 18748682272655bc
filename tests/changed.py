"""Which tests a change touches: ``python -m tests.changed`` prints their files, and with ``--files`` the changed Python files.

In: the files that git says differ from ``main`` (on ``main`` itself: from the last commit), those not committed yet included. Out: the test
files among them, the tests that import a changed module, and those of the room that mirrors it. Imports are read from the files' text and
followed through the helpers in ``tests/`` alone: what a module breaks behind two others is found by ``make test``.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path("src")
# What has no test of its name: the tests to run when it changes.
ELSEWHERE = {
    "docs": "tests/docs",
    "README.md": "tests/docs",
    "README.ko.md": "tests/docs",
    "Makefile": "tests/test_setup.py",
    "pyproject.toml": "tests/test_distribution.py",
}


def main(arguments: list[str]) -> int:
    """Print the test files that the change touches; with ``--files`` the Python files that it consists of."""
    changed = changed_files()
    found = {path for path in changed if path.suffix == ".py" and (ROOT / path).is_file()} if arguments == ["--files"] else touched(changed)
    print("\n".join(sorted(map(str, found))))
    return 0


def changed_files() -> list[Path]:
    """The files that differ from where this branch left ``main``, or on ``main`` from the commit before the last."""
    base = _git("merge-base", "main", "HEAD") or ["HEAD"]
    if base == _git("rev-parse", "HEAD"):
        base = ["HEAD"] if _git("status", "--porcelain") else ["HEAD~1"]
    return [Path(name) for name in (*_git("diff", "--name-only", base[0]), *_git("ls-files", "--others", "--exclude-standard"))]


def touched(changed: list[Path]) -> set[Path]:
    """The test files that import one of these files, are one of them, or stand in the room that mirrors one."""
    modules = {name for path in changed for name in _module_names(path)}
    found = {path for path in _tests() if path in changed or modules & _reached(path)}
    for path in changed:
        found |= _mirrored(path)
        found |= {test for start, tests in ELSEWHERE.items() if path.parts[0] == start for test in _tests() if test.is_relative_to(tests)}
    return found


def _mirrored(path: Path) -> set[Path]:
    """The tests of a module's room, ``tests/engine`` for ``src/florence2/engine/batch.py``; of a module in no room the test of its name."""
    if not path.is_relative_to(SOURCE / "florence2") or path.suffix != ".py":
        return set()
    *rooms, name = path.relative_to(SOURCE / "florence2").parts
    folder = Path("tests", *rooms)
    while not (ROOT / folder).is_dir():
        folder = folder.parent
    return {test for test in _tests() if (test.is_relative_to(folder) if folder.parts[1:] else test == folder / f"test_{name}")}


def _module_names(path: Path) -> Iterator[str]:
    """The dotted name of a Python file, as tests write it."""
    if path.suffix == ".py":
        parts = (path.relative_to(SOURCE) if path.is_relative_to(SOURCE) else path).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _tests() -> tuple[Path, ...]:
    return tuple(path.relative_to(ROOT) for path in sorted((ROOT / "tests").rglob("test_*.py")))


def _reached(test: Path) -> set[str]:
    """The modules that a test imports, itself or through helpers of tests."""
    found: set[str] = set()
    seen: set[Path] = set()
    left = [test, *(folder / "conftest.py" for folder in test.parents)]
    while left:
        path = left.pop()
        if path not in seen and (ROOT / path).is_file():
            seen.add(path)
            found |= _imports(path)
            left += [Path(*name.split(".")).with_suffix(".py") for name in _imports(path) if name.startswith(("tests.", "fixtures."))]
    return found


@cache
def _imports(path: Path) -> frozenset[str]:
    """The modules that a file imports; of ``from module import name`` both ``module`` and ``module.name``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def _git(*arguments: str) -> list[str]:
    """The lines of a git command's output; none where it fails."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
