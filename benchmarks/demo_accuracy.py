"""How well ``florence-2-demo`` answers about scenes that it was never trained on.

Scenes come from the demo's world under a seed that training never draws from. Greedy search and the checkpoint's own three
beams are measured on the same scenes, one after the other; nothing is chosen. With ``--small`` shapes are smaller than the demo's
world promises, as small as it was shown in training, and only greedy search is measured.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

import florence2
from benchmarks import report
from florence2.cli.evaluate import table
from florence2.data_sources import read_source
from florence2.evaluation.answers import answer_all
from florence2.evaluation.metrics import compute_metrics, metrics_as_dict
from florence2.scenes.synthetic import FIRST_FREE_SEED, parse_synthetic

SEED = FIRST_FREE_SEED + 2311
SMALLEST = 0.05
SEARCHES = {"greedy": 1, "three beams": 3}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--model", default="florence-2-demo")
    parser.add_argument("--small", action="store_true", help=f"shapes from {SMALLEST} of the side on")
    arguments = parser.parse_args()
    name = f"synthetic:{arguments.scenes}?seed={SEED}" + (f"&smallest={SMALLEST}" if arguments.small else "")
    records = read_source(name, for_training=False).sound()
    figures = {}
    with florence2.load(arguments.model, device="cpu", precision="fp32") as engine:
        for search, num_beams in list(SEARCHES.items())[: 1 if arguments.small else None]:
            found = compute_metrics(answer_all(engine, records, num_beams=num_beams))
            figures[search] = metrics_as_dict(found)
            print(search, *table(found), sep="\n", flush=True)
    world = asdict(parse_synthetic(name, default_seed=SEED).options)
    settings = {"model": arguments.model, "data": name, "scenes": arguments.scenes, "precision": "fp32", "world": world}
    print(report.write("demo_accuracy_small_shapes" if arguments.small else "demo_accuracy", settings, figures))


if __name__ == "__main__":
    main()
