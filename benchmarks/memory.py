"""What a process holds at its highest, ours and ``transformers``, by the type in which the weights are stored: float32 or float16.

Every process loads a base model with random weights and answers twice, one picture with three beams each. Pages of a file that a process
has mapped count for as long as the system leaves them there.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.compare import Contest, process
from fixtures.checkpoints import write_checkpoint

STORED = {"float32": torch.float32, "float16": torch.float16}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    contest = Contest.on("cpu")
    figures = {}
    for stored, dtype in STORED.items():
        with tempfile.TemporaryDirectory() as folder:
            path = write_checkpoint(Path(folder), size="base", dtype=dtype)
            figures[stored] = {kind: process(contest, kind, path, arguments.repeats) for kind in contest.names}
        print(stored, figures[stored], flush=True)
    settings = {"repeats": arguments.repeats, "size": "base", "weights": "random"}
    print(report.write(contest.result.replace("compare", "memory"), settings, figures))


if __name__ == "__main__":
    main()
