"""One answer of ``florence-2-demo`` beside busy neighbours, with threads as libgomp has them and as ours are.

Two engines in processes of their own answer by turns, in every round and beside every neighbour: one with a thread for each processor
and ``GOMP_SPINCOUNT`` as libgomp has it by itself, one with nothing set, which is what users have. Neighbours are other processes:
loops that keep one processor busy each, and a program that computes with PyTorch on all of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import report
from florence2.cores import usable_cores
from florence2.openmp import SPIN_COUNT

LIBGOMPS_OWN = "300000"  # its documented default where no more threads than processors are managed
ENGINES = {"before": {"GOMP_SPINCOUNT": LIBGOMPS_OWN, "OMP_NUM_THREADS": str(usable_cores())}, "after": {}}
BUSY = "while True: pass"
COMPUTING = "import torch\nmatrix = torch.rand(256, 256)\nwhile True: matrix = (matrix @ matrix).clamp(0, 1)"
NEIGHBOURS: dict[str, list[str]] = {"none": [], "1 loop": [BUSY], "2 loops": [BUSY, BUSY], "PyTorch on all cores": [COMPUTING]}
SETTLE_S = 3.0
IMAGE = Path(__file__).resolve().parents[1] / "examples" / "scene.png"
PROMPT = "<OD>"
# A program of its own, as users write them: nothing here may import PyTorch before the package does.
ANSWERING = f"""
import sys, time, florence2
with florence2.load("florence-2-demo", device="cpu", precision=sys.argv[1], image_cache_bytes=0) as engine:
    engine.run({str(IMAGE)!r}, {PROMPT!r})
    for _ in sys.stdin:
        began = time.perf_counter()
        engine.run({str(IMAGE)!r}, {PROMPT!r})
        print(time.perf_counter() - began, flush=True)
"""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=15, help="of each engine beside each neighbour")
    parser.add_argument("--precision", nargs="*", default=["fp32", "bf16"], help="each is measured by itself")
    parser.add_argument("--spin", nargs="*", default=[], metavar="COUNT", help="further spin counts to compare")
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    chosen = {**ENGINES, **{f"spin {count}": {"GOMP_SPINCOUNT": count} for count in arguments.spin}}
    figures = {precision: _measured(precision, chosen, arguments.answers) for precision in arguments.precision}
    if not arguments.no_write:
        spins = {"before": int(LIBGOMPS_OWN), "after": int(SPIN_COUNT)}
        settings = {"prompt": PROMPT, "image": IMAGE.name, "answers": arguments.answers, "spin_count": spins}
        print(report.write("neighbours", settings, figures))


def _measured(precision: str, chosen: dict[str, dict[str, str]], count: int) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds of an answer of each engine, by the neighbours beside it."""
    figures = {}
    with ExitStack() as stack:
        serve = [sys.executable, "-c", ANSWERING, precision]
        engines = {name: stack.enter_context(_running(serve, **environment)) for name, environment in chosen.items()}
        for name, scripts in NEIGHBOURS.items():
            figures[name] = _beside(scripts, engines, count)
            print(precision, name, figures[name], flush=True)
    return figures


def _beside(scripts: list[str], engines: dict[str, subprocess.Popen[str]], count: int) -> dict[str, dict[str, float]]:
    """Milliseconds of an answer of each engine beside these neighbours."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    with ExitStack() as stack:
        for script in scripts:
            stack.enter_context(_running([sys.executable, "-c", script]))
        time.sleep(SETTLE_S if scripts else 0)
        for _ in range(count):
            for name, engine in engines.items():
                seconds[name].append(_ask(engine))
    return {name: report.spread(values) for name, values in seconds.items()}


def _ask(engine: subprocess.Popen[str]) -> float:
    """Seconds that one answer takes, as the engine's own process sees it."""
    assert engine.stdin is not None
    assert engine.stdout is not None
    engine.stdin.write("answer\n")
    engine.stdin.flush()
    return float(engine.stdout.readline())


@contextmanager
def _running(command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process, ended at the end."""
    names = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    process = subprocess.Popen(command, env={**names, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
