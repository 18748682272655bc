"""Tries the wheel in fresh environments: ``python -m tests.environments lowest newest … [--python 3.12] [--torch 2.8.0]``.

In: the wheel, which is built first. Out: a row for each environment, with ``--keep`` in ``benchmarks/results/environments.json``: its
Python, the versions of what the project asks for by name, and how many tests passed. Exits with 1 if any failed. An environment is a
temporary folder; nothing of the checkout's own is used but its tests.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from packaging.tags import sys_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from tests.environments.readme import step
from tests.environments.requirements import KINDS, constraints_of, names, requirements, torch_instead

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "environments.json"
SMOKE = "tests/environments/smoke.py"
STEPS = "tests/environments/readme.py"
# What touches each library in other ways than the smoke test; none needs transformers or peft.
QUICK = (
    *("tests/cli/test_commands.py", "tests/test_usage.py", "tests/images", "tests/draw", "tests/tasks"),
    *("tests/model/cpu", "tests/model/test_cache.py", "tests/model/test_config.py", "tests/model/test_shapes.py"),
    *(
        "tests/weights/test_hub.py",
        "tests/weights/test_tensors.py",
        "tests/server/roboflow/test_routes.py",
        "tests/server/http/test_body.py",
    ),
    *(
        "tests/server/test_settings.py",
        "tests/server/http/test_metrics.py",
        "tests/server/test_errors.py",
        "tests/server/http/test_auth.py",
        "tests/server/http/test_tracing.py",
        "tests/server/accounts/test_store.py",
        "tests/server/accounts/test_limits.py",
    ),
    *(
        "tests/server/inference/test_admission.py",
        "tests/server/http/test_url_fetch.py",
        "tests/client/test_service.py",
        "tests/client/test_wire.py",
    ),
    *("tests/labelling/test_parts.py", "tests/cluster/test_server.py"),
    *("tests/datasets/test_coco.py", "tests/evaluation/test_metrics.py", "tests/training/demo/test_trainer.py"),
)
NOT_TIMED = "not at_once_in_few_words"  # how long a request may hold others up is for the development environment
COMPILERS = {"g++", "c++", "gcc", "cc", "clang", "clang++"}


@dataclasses.dataclass(frozen=True)
class Environment:
    """One environment to try.

    Attributes:
        kind: of ``KINDS``.
        python: what ``uv venv --python`` is given.
        torch: a version of torch instead of the one that the kind would take.
        tests: what is run there.
    """

    kind: str
    python: str
    torch: str | None
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        """How messages call it."""
        return " ".join([self.kind, f"python {self.python}", *([f"torch {self.torch}"] if self.torch else [])])


def main(arguments: list[str] | None = None) -> int:
    """Try them one after the other; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.environments", description=__doc__)
    parser.add_argument("kinds", nargs="+", choices=KINDS)
    parser.add_argument("--python", action="append", help="an interpreter or a version; may be repeated; default: this one")
    parser.add_argument("--torch", help="this version of torch")
    parser.add_argument("--smoke", action="store_true", help="the smoke test alone")
    parser.add_argument(
        "--wheel", type=Path, help="a wheel that is there already, or a folder of them: pip's choice for this machine is taken"
    )
    parser.add_argument("--keep", action="store_true", help=f"write the rows to {RESULTS.relative_to(ROOT)}")
    given = parser.parse_args(arguments)
    chosen = (SMOKE,) if given.smoke else (SMOKE, *QUICK)
    pythons = given.python or [sys.executable]
    rows = []
    with tempfile.TemporaryDirectory(prefix="florence2-wheel-") as folder:
        wheel = build(Path(folder)) if given.wheel is None else given.wheel if given.wheel.is_file() else best_of(given.wheel)
        for python in pythons:
            for kind in given.kinds:
                tests = (STEPS,) if kind == "readme" else chosen
                rows.append(try_out(Environment(kind, python, given.torch or torch_instead(kind), tests), wheel))
                print(json.dumps({key: value for key, value in rows[-1].items() if key != "versions"}), flush=True)
    if given.keep:
        keep(rows)
    return int(any(row["failed"] or not row["passed"] for row in rows))


def build(folder: Path) -> Path:
    """The wheel of this checkout."""
    uv("build", "--wheel", "--quiet", "--out-dir", str(folder), str(ROOT))
    return best_of(folder)


def best_of(folder: Path) -> Path:
    """The wheel of a folder that installers take on this machine.

    Raises:
        SystemExit: there is none for it.
    """
    order = {tag: rank for rank, tag in enumerate(sys_tags())}
    ranked = [(min(order.get(tag, len(order)) for tag in parse_wheel_filename(path.name)[3]), path) for path in folder.glob("*.whl")]
    rank, wheel = min(ranked, default=(len(order), folder))
    if rank == len(order):
        sys.exit(f"{folder} has no wheel for this machine")
    return wheel


def uv(*arguments: str) -> str:
    """What uv prints; it is a tool of the development environment.

    Raises:
        SystemExit: it failed.
    """
    program = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if program is None:
        sys.exit("uv is missing: make test installs the development tools")
    ended = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"uv {' '.join(arguments[:3])} failed:\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def try_out(wanted: Environment, wheel: Path) -> dict[str, object]:
    """Make an environment, run the tests there and give back what came of it."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="florence2-environment-") as name:
        folder = Path(name)
        python = install(wanted, wheel, folder)
        installed = {
            canonicalize_name(one["name"]): one["version"] for one in json.loads(uv("pip", "list", "--format", "json", "-p", str(python)))
        }
        ready = time.monotonic()
        counts = run_tests(wanted, python, folder, wheel)
        facts = subprocess.run(
            [python, "-c", "import platform; print(platform.python_version())"], capture_output=True, text=True, check=True
        )
    return {
        "kind": wanted.kind,
        "python": facts.stdout.strip(),
        "tests": {SMOKE: "smoke", STEPS: "the README's steps"}[wanted.tests[0]] + (" and quick" if len(wanted.tests) > 1 else ""),
        **counts,
        "install_s": round(ready - begun),
        "tests_s": round(time.monotonic() - ready),
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: installed[name] for name in sorted(names()) if name in installed},
    }


def install(wanted: Environment, wheel: Path, folder: Path) -> Path:
    """The interpreter of a fresh environment with the wheel and all that it asks for."""
    uv("venv", "--quiet", "--python", wanted.python, str(folder / "venv"))
    python = folder / "venv" / "bin" / "python"
    if wanted.kind == "readme":
        follow_readme(python, wheel)
        return python
    lines = requirements(wanted.torch)
    file = folder / "requirements.txt"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    pip = ("pip", "install", "--quiet", "--python", str(python))
    uv(*pip, *constraints_of(wanted.kind), "--requirement", str(file))
    # Last, and alone: what it asks for has to be there already.
    uv(*pip, "--no-deps", str(wheel))
    uv("pip", "check", "--python", str(python))
    return python


def follow_readme(python: Path, wheel: Path) -> None:
    """Fill an environment by the README's own line, which finds the wheel beside what the index has; then what the tests need.

    Raises:
        SystemExit: the line failed.
    """
    uv("pip", "install", "--quiet", "--python", str(python), "pip")
    (line,) = step("pip install")
    found = " ".join([str(wheel.parent), os.environ.get("PIP_FIND_LINKS", "")]).strip()
    settings = {"PIP_FIND_LINKS": found, "PIP_CONSTRAINT": str(ROOT / "constraints.txt"), "PIP_QUIET": "1"}
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    ended = subprocess.run(["bash", "-c", line], env={**os.environ, **settings, "PATH": path}, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{line} failed:\n{ended.stdout}{ended.stderr}")
    uv("pip", "install", "--quiet", "--python", str(python), *constraints_of("pinned"), "pytest", "pytest-timeout")


def run_tests(wanted: Environment, python: Path, folder: Path, wheel: Path) -> dict[str, object]:
    """How many tests passed, failed and were skipped, and which failed."""
    report = folder / "report.xml"
    # Warnings of other versions' libraries are theirs; ours are errors in the development environment.
    options = ["-p", "no:cacheprovider", "-o", "filterwarnings=default", "--disable-warnings", "--junitxml", str(report), "-k", NOT_TIMED]
    variables = environment(wanted, python, folder) | {"FLORENCE2_TEST_WHEEL": "pure" if wheel.stem.endswith("-any") else "native"}
    subprocess.run([python, "-m", "pytest", *options, *wanted.tests], cwd=ROOT, env=variables, check=False)
    if not report.exists():
        return {"passed": 0, "failed": ["no test ran"], "skipped": 0}
    cases = ElementTree.parse(report).getroot().findall(".//testcase")
    failed = [
        f"{one.get('classname')}::{one.get('name')}" for one in cases if one.find("failure") is not None or one.find("error") is not None
    ]
    skipped = sum(one.find("skipped") is not None for one in cases)
    return {"passed": len(cases) - len(failed) - skipped, "failed": failed, "skipped": skipped}


def environment(wanted: Environment, python: Path, folder: Path) -> dict[str, str]:
    """The variables of the tests' process: an empty cache, nothing of the checkout, and no compiler where there shall be none."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FLORENCE2_", "VIRTUAL_ENV"))}
    has_compiler = wanted.kind != "no-compiler"
    programs = os.environ.get("PATH", "") if has_compiler else str(without_compilers(folder / "programs"))
    return {
        **kept,
        "PATH": os.pathsep.join([str(python.parent), programs]),
        "XDG_CACHE_HOME": str(folder / "cache"),
        **({} if has_compiler else {"FLORENCE2_TEST_COMPILER": "False"}),
    }


def without_compilers(folder: Path) -> Path:
    """A folder with all programs of the path but compilers."""
    folder.mkdir()
    for place in os.environ.get("PATH", "").split(os.pathsep):
        for program in Path(place).glob("*") if Path(place).is_dir() else ():
            link = folder / program.name
            if not program.name.startswith(tuple(COMPILERS)) and not link.is_symlink() and "pyenv" not in str(program):
                link.symlink_to(program)
    return folder


def keep(rows: list[dict[str, object]]) -> None:
    """Put rows into the results file; those of the same kind, Python and torch are replaced."""

    def key(row: dict) -> tuple:
        return (KINDS.index(row["kind"]), tuple(int(part) for part in row["python"].split(".")), row["versions"]["torch"])

    before = json.loads(RESULTS.read_text(encoding="utf-8"))["environments"] if RESULTS.exists() else []
    merged = {key(row): row for row in [*before, *rows]}
    content = {"environments": [merged[one] for one in sorted(merged)]}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
