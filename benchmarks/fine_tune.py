"""The tutorial of ``docs/fine-tune.md``, run as it stands: what the model knew of a new shape before and after, and what it forgot.

The page's own command lines are run in a folder of their own, one after the other; the figures are those that they write.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import time
from pathlib import Path
from subprocess import run

from benchmarks import report

PAGE = Path(__file__).parents[1] / "docs" / "fine-tune.md"


def commands() -> list[list[str]]:
    """The page's ``florence2 train`` and ``florence2 evaluate`` lines, up to those that need data of the reader's own."""
    tutorial = PAGE.read_text(encoding="utf-8").split("\n## Your own data", maxsplit=1)[0]
    return [shlex.split(line) for line in tutorial.splitlines() if line.startswith(("florence2 train ", "florence2 evaluate "))]


def main() -> None:
    """Run, print and write."""
    figures, seconds = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for words in commands():
            print(shlex.join(words), flush=True)
            started = time.perf_counter()
            run([str(Path(sys.executable).with_name("florence2")), *words[1:]], cwd=folder, check=True)
            seconds[shlex.join(words)] = round(time.perf_counter() - started, 1)
            if "evaluate" in words:
                name = words[words.index("--output") + 1]
                figures[name] = json.loads((Path(folder) / name / "evaluation.json").read_text())["figures"]
    print(report.write("fine_tune", {"seconds": seconds}, figures))


if __name__ == "__main__":
    main()
